#!/bin/sh
# The guest's only program. The kernel's command line says what to do: mode=write or check.
# Its answers are the lines that begin with GUEST.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
export PATH=/bin:/usr/bin:/sbin:/usr/sbin HOME=/tmp
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
  insmod "/modules/$module.ko"
done
for word in $(cat /proc/cmdline); do
  case $word in mode=*) eval "$word" ;; esac
done
mkdir -p /a /b

# The database is on the first disk, the files that its rows name are on the second, or on the first where it is alone.
mounted() {
  mount -t ext4 -o discard "$@" /dev/vda /a || return
  if [ -b /dev/vdb ]; then mount -t ext4 -o discard "$@" /dev/vdb /b; else mkdir -p /a/files && mount -o bind /a/files /b; fi
}

sql() { sqlite3 -batch -bail -cmd '.timeout 5000' -cmd 'PRAGMA synchronous=FULL' /a/db "$@"; }

# Each row names the digest of a file that was synced before; after 64 rows the file goes, its row first.
write() {
  mounted || return
  sql 'PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, file TEXT)' >/tmp/made || return
  n=$(sql 'SELECT coalesce(max(id), 0) FROM rows')
  while :; do
    n=$((n + 1))
    size=$((n % 7 * 8 + 4))
    dd if=/dev/urandom of=/b/$n bs=1k count=$size conv=fsync 2>/dev/null || return
    digest=$(sha256sum </b/$n) || return
    sql "BEGIN; INSERT INTO rows VALUES ($n, '${digest%% *}'); UPDATE rows SET file = NULL WHERE id = $n - 64; COMMIT" || return
    echo "GUEST committed $n"
    rm -f /b/$((n - 64))
  done
}

# Mounting replays the journals, as after a power cut; what is left then must be whole.
check() {
  mounted || return
  integrity=$(sql 'PRAGMA integrity_check' 2>&1 | head -n 1 | tr ' ' '_')
  bad=0
  sql 'SELECT id, file FROM rows WHERE file IS NOT NULL' >/tmp/rows
  while IFS='|' read -r id digest; do
    found=$(sha256sum </b/$id) || found=
    [ "${found%% *}" = "$digest" ] || bad=$((bad + 1))
  done </tmp/rows
  rows=$(sql 'SELECT count(*) FROM rows')
  newest=$(sql 'SELECT coalesce(max(id), 0) FROM rows')
  umount /b /a
  fsck=0
  for disk in /dev/vd?; do
    e2fsck -fn "$disk" >/tmp/fsck 2>&1 || { fsck=$?; cat /tmp/fsck; }
  done
  echo "GUEST found rows=$rows newest=$newest integrity=$integrity bad=$bad fsck=$fsck"
}

echo "GUEST started $mode"
"$mode"
echo "GUEST ended $?"
sync
poweroff -f

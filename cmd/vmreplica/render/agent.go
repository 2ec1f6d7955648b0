package render

import (
	"fmt"
	"strings"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// Agent writes what an agent says of itself.
func (p Printer) Agent(agent *vmreplicav1.Agent) error {
	return p.Message(agent, func(page *Page) {
		page.Line("The %s agent %s", strings.ToLower(Word(agent.GetRole())), agent.GetIdentity())
		page.fact("Version", agent.GetVersion())
		page.fact("Running since", moment(agent.GetStartTime(), page.now))
		page.fact("Certificate ends", moment(agent.GetCertificateExpireTime(), page.now))
		settings := agent.GetSettings()
		limit := "none"
		if settings.GetBandwidthLimitBytesPerSecond() > 0 {
			limit = Rate(settings.GetBandwidthLimitBytesPerSecond())
		}
		page.fact("Bandwidth limit", limit)
		page.fact("Transfers at a time", fmt.Sprint(settings.GetMaxTransfers()))
		for _, limit := range agent.GetPlatformLimits() {
			page.fact("This platform", limit)
		}
	})
}

// Connection writes the steps of the way to a replica, as tried from an agent.
func (p Printer) Connection(from, to string, r *vmreplicav1.TestConnectionResponse) error {
	return p.Message(r, func(page *Page) {
		page.Line("From %s to the replica at %s", from, to)
		rows := newTable("CHECK", "RESULT", "TIME", "SEEN")
		for _, check := range r.GetChecks() {
			result := "passed"
			if !check.GetPassed() {
				result = "FAILED"
			}
			rows.add(check.GetName(), result, span(check.GetDuration()), check.GetMessage())
			if !check.GetPassed() && check.GetRemedy() != "" {
				rows.note("%s", check.GetRemedy())
			}
		}
		rows.on(page)
	})
}

// Authorizations writes a replica's entries, a row each.
func (p Printer) Authorizations(list *vmreplicav1.ListAuthorizationsResponse) error {
	return p.Message(list, func(page *Page) { page.authorizations(list.GetAuthorizations()) })
}

// Authorization writes one entry.
func (p Printer) Authorization(entry *vmreplicav1.Authorization) error {
	return p.Message(entry, func(page *Page) { page.authorizations([]*vmreplicav1.Authorization{entry}) })
}

func (p *Page) authorizations(entries []*vmreplicav1.Authorization) {
	if len(entries) == 0 {
		p.Line("This replica accepts no primary.")
		return
	}
	heading := []string{"PRIMARY", "STORAGE", "QUOTA", "USED"}
	if p.wide {
		heading = append(heading, "TRUST-GROUP", "CREATED")
	}
	rows := newTable(heading...)
	for _, entry := range entries {
		quota, storage := none, entry.GetStorageSubdirectory()
		if entry.GetQuotaBytes() > 0 {
			quota = Size(entry.GetQuotaBytes())
		}
		if storage == "" {
			storage = "(the primary's name)"
		}
		row := []string{entry.GetPattern(), storage, quota, Size(entry.GetUsedBytes())}
		if p.wide {
			row = append(row, entry.GetTrustGroup(), distance(entry.GetCreateTime(), p.now, none))
		}
		rows.add(row...)
		for _, device := range entry.GetDevices() {
			rows.note("%s/%s is %s", device.GetVm(), device.GetDisk(), device.GetDevice())
		}
	}
	rows.on(p)
}

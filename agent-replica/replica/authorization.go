package replica

import (
	"context"
	"strings"
	"time"

	"vmreplica/agent-replica/authorization"
	"vmreplica/internal/api"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/state"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

// authorizationService serves the entries.
type authorizationService struct {
	vmreplicav1.UnimplementedAuthorizationServiceServer
	book        *authorization.Book
	usage       *usage
	requests    *requests
	events      *event.Log
	credentials *transport.Credentials
	receiver    Receiver
}

func (s *authorizationService) expand(pattern string) string {
	return authorization.Expand(pattern, s.credentials.Identity().TrustDomain)
}

// CreateAuthorization adds an entry.
func (s *authorizationService) CreateAuthorization(ctx context.Context, r *vmreplicav1.CreateAuthorizationRequest,
) (*vmreplicav1.Authorization, error) {
	asked := r.GetAuthorization()
	entry := authorization.Entry{
		Pattern: s.expand(asked.GetPattern()), Subdirectory: asked.GetStorageSubdirectory(),
		TrustGroup: asked.GetTrustGroup(), QuotaBytes: asked.GetQuotaBytes(), Devices: devicesFrom(asked.GetDevices()),
		CreateTime: time.Now().UTC().Truncate(time.Second),
	}
	if err := s.book.Check(entry); err != nil {
		return nil, err
	}
	var told event.Event
	answer, err := remember(ctx, s.requests, r, r.GetRequestId(), new(vmreplicav1.Authorization),
		func(tx state.Tx) (*vmreplicav1.Authorization, error) {
			if err := s.book.Create(tx, entry); err != nil {
				return nil, err
			}
			var err error
			told, err = s.events.Append(tx, event.AuthorizationCreated(entry.Pattern, placeOf(entry)))
			return authorizationOf(entry, 0), err
		})
	s.publish(told, err)
	return answer, err
}

// placeOf is where an entry's disks land, in words.
func placeOf(entry authorization.Entry) string {
	if entry.Subdirectory == "" {
		return "the directory of its own name"
	}
	return entry.Subdirectory
}

// publish makes known what a transaction told, when it happened and was not a repetition.
func (s *authorizationService) publish(told event.Event, err error) {
	if err == nil && told.Sequence > 0 {
		s.events.Publish(told)
	}
}

func devicesFrom(mapped []*vmreplicav1.DeviceMapping) []authorization.Device {
	var devices []authorization.Device
	for _, d := range mapped {
		devices = append(devices, authorization.Device{VM: d.GetVm(), Disk: d.GetDisk(), Device: d.GetDevice()})
	}
	return devices
}

func authorizationOf(entry authorization.Entry, used int64) *vmreplicav1.Authorization {
	shown := &vmreplicav1.Authorization{
		Pattern: entry.Pattern, StorageSubdirectory: entry.Subdirectory, TrustGroup: entry.TrustGroup,
		QuotaBytes: entry.QuotaBytes, CreateTime: api.TimeToProto(entry.CreateTime), UsedBytes: used,
	}
	for _, d := range entry.Devices {
		shown.Devices = append(shown.Devices, &vmreplicav1.DeviceMapping{Vm: d.VM, Disk: d.Disk, Device: d.Device})
	}
	return shown
}

func (s *authorizationService) show(entry authorization.Entry) (*vmreplicav1.Authorization, error) {
	used, err := s.usage.used(entry.Pattern)
	return authorizationOf(entry, used), err
}

// GetAuthorization shows one entry.
func (s *authorizationService) GetAuthorization(_ context.Context, r *vmreplicav1.GetAuthorizationRequest,
) (*vmreplicav1.Authorization, error) {
	entry, err := s.book.Get(s.expand(r.GetPattern()))
	if err != nil {
		return nil, err
	}
	return s.show(entry)
}

// ListAuthorizations shows all entries, by pattern.
func (s *authorizationService) ListAuthorizations(_ context.Context, r *vmreplicav1.ListAuthorizationsRequest,
) (*vmreplicav1.ListAuthorizationsResponse, error) {
	entries, err := s.book.List()
	if err != nil {
		return nil, err
	}
	key := func(e authorization.Entry) string { return e.Pattern }
	page, next, err := pageOf(entries, key, r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	answer := &vmreplicav1.ListAuthorizationsResponse{NextPageToken: next}
	for _, entry := range page {
		shown, err := s.show(entry)
		if err != nil {
			return nil, err
		}
		answer.Authorizations = append(answer.Authorizations, shown)
	}
	return answer, nil
}

// UpdateAuthorization changes quota and devices.
func (s *authorizationService) UpdateAuthorization(ctx context.Context, r *vmreplicav1.UpdateAuthorizationRequest,
) (*vmreplicav1.Authorization, error) {
	asked := r.GetAuthorization()
	if err := checkMask(r.GetUpdateMask().GetPaths(), "quota_bytes", "devices"); err != nil {
		return nil, err
	}
	change := func(e *authorization.Entry) {
		for _, path := range r.GetUpdateMask().GetPaths() {
			if path == "quota_bytes" {
				e.QuotaBytes = asked.GetQuotaBytes()
			} else {
				e.Devices = devicesFrom(asked.GetDevices())
			}
		}
	}
	return remember(ctx, s.requests, r, r.GetRequestId(), new(vmreplicav1.Authorization),
		func(tx state.Tx) (*vmreplicav1.Authorization, error) {
			entry, err := s.book.Update(tx, s.expand(asked.GetPattern()), change)
			return authorizationOf(entry, 0), err
		})
}

// checkMask refuses a mask that is empty or names what cannot be changed.
func checkMask(paths []string, allowed ...string) error {
	if len(paths) == 0 {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the update mask names nothing").
			Try("Name one or more of %s.", strings.Join(allowed, ", "))
	}
	for _, path := range paths {
		known := false
		for _, a := range allowed {
			known = known || a == path
		}
		if !known {
			return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%.60q cannot be changed", path).
				Try("Name one or more of %s.", strings.Join(allowed, ", "))
		}
	}
	return nil
}

// DeleteAuthorization removes an entry and ends the connections of the primaries that it admitted.
func (s *authorizationService) DeleteAuthorization(ctx context.Context, r *vmreplicav1.DeleteAuthorizationRequest,
) (*vmreplicav1.DeleteAuthorizationResponse, error) {
	pattern := s.expand(r.GetPattern())
	var told event.Event
	answer, err := remember(ctx, s.requests, r, r.GetRequestId(), new(vmreplicav1.DeleteAuthorizationResponse),
		func(tx state.Tx) (*vmreplicav1.DeleteAuthorizationResponse, error) {
			if err := s.book.Delete(tx, pattern); err != nil {
				return nil, err
			}
			var err error
			told, err = s.events.Append(tx, event.AuthorizationDeleted(pattern))
			return &vmreplicav1.DeleteAuthorizationResponse{}, err
		})
	s.publish(told, err)
	if err != nil {
		return nil, err
	}
	if err := s.refuseStreams(ctx, pattern); err != nil {
		return nil, err
	}
	withdrawn := authorization.Entry{Pattern: pattern}
	s.credentials.CloseIdentity(func(peer transport.Identity) bool {
		return peer.Role == transport.RolePrimary && withdrawn.Admits(peer)
	})
	return answer, nil
}

// farewell is how long a stream's last words may take to reach a primary before its connection is cut.
const farewell = 300 * time.Millisecond

// refuseStreams ends the streams that a deleted entry had admitted, so that their primaries are told why before their
// connections end.
func (s *authorizationService) refuseStreams(ctx context.Context, pattern string) error {
	records, err := s.usage.table.List()
	if err != nil {
		return err
	}
	told := false
	for _, record := range records {
		if record.Authorization != pattern || record.Transfer == nil {
			continue
		}
		told = true
		s.receiver.Refuse(record.VM, failure.New(failure.Denied, failure.ReasonNotAuthorized,
			"the authorization of this primary was deleted").Try("Authorize it again with: vmreplica authorize %s", pattern))
	}
	if !told {
		return nil
	}
	wait := time.NewTimer(farewell)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
	return nil
}

package primary

import (
	"vmreplica/agent-primary/relationship"
	"vmreplica/internal/api"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// settable are the paths that an update's mask may name, each with how its new value is read.
var settable = map[string]func(*relationship.Update, *vmreplicav1.Replication) error{
	"labels": func(u *relationship.Update, asked *vmreplicav1.Replication) error {
		if u.Labels = asked.GetLabels(); u.Labels == nil {
			u.Labels = map[string]string{}
		}
		return nil
	},
	"spec.replica_address": func(u *relationship.Update, asked *vmreplicav1.Replication) error {
		u.ReplicaAddress = asked.GetSpec().GetReplicaAddress()
		return nil
	},
	"spec.interval": func(u *relationship.Update, asked *vmreplicav1.Replication) error {
		interval, err := api.IntervalFromProto(asked.GetSpec().GetInterval())
		u.Interval = &interval
		return err
	},
	"spec.recovery_points": func(u *relationship.Update, asked *vmreplicav1.Replication) error {
		points, err := api.RecoveryPointsFromProto(asked.GetSpec().GetRecoveryPoints())
		u.RecoveryPoints = &points
		return err
	},
	"spec.auto_resync": func(u *relationship.Update, asked *vmreplicav1.Replication) error {
		policy, err := api.AutoResyncFromProto(asked.GetSpec().GetAutoResync())
		u.AutoResync = &policy
		return err
	},
	"spec.hrl_limit_percent": func(u *relationship.Update, asked *vmreplicav1.Replication) error {
		limit, err := api.HRLLimitFromProto(asked.GetSpec().HrlLimitPercent)
		u.HRLLimitPercent = &limit
		return err
	},
	"spec.qmp_socket": func(u *relationship.Update, asked *vmreplicav1.Replication) error {
		socket, err := api.SocketFromProto(asked.GetSpec().GetQmpSocket())
		u.QMPSocket = &socket
		return err
	},
}

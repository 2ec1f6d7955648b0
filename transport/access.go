package transport

import (
	"context"
	"slices"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// accessTable is the roles that may call a method, by full method name. What is not in it may be called by nobody.
type accessTable map[string][]Role

var protoRoles = map[vmreplicav1.Role]Role{
	vmreplicav1.Role_ROLE_PRIMARY:  RolePrimary,
	vmreplicav1.Role_ROLE_REPLICA:  RoleReplica,
	vmreplicav1.Role_ROLE_OPERATOR: RoleOperator,
	vmreplicav1.Role_ROLE_VIEWER:   RoleViewer,
}

// openServices tell nothing but what is served; every role may call them. Their descriptors are not ours to mark.
var openServices = []string{
	"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
}

// newAccessTable reads the option beside each registered method.
func newAccessTable(services map[string]grpc.ServiceInfo) accessTable {
	table := accessTable{}
	for service, info := range services {
		for _, method := range info.Methods {
			table["/"+service+"/"+method.Name] = methodRoles(service, method.Name)
		}
	}
	return table
}

func methodRoles(service, method string) []Role {
	if slices.Contains(openServices, service) {
		return allRoles
	}
	name := protoreflect.FullName(service).Append(protoreflect.Name(method))
	descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return nil
	}
	access, ok := proto.GetExtension(descriptor.Options(), vmreplicav1.E_Access).(*vmreplicav1.Access)
	if !ok {
		return nil
	}
	var roles []Role
	for _, role := range access.GetRoles() {
		if known, ok := protoRoles[role]; ok {
			roles = append(roles, known)
		}
	}
	return roles
}

// authorize lets the caller of a method pass, or says why not.
func (t accessTable) authorize(ctx context.Context, method string) error {
	caller, ok := PeerIdentity(ctx)
	if !ok {
		return status.Error(codes.Unauthenticated, "the caller has shown no certificate")
	}
	if slices.Contains(t[method], caller.Role) {
		return nil
	}
	denied := status.Newf(codes.PermissionDenied, "%s: role %s may not call %s", caller, caller.Role, quote(method))
	if detailed, err := denied.WithDetails(&errdetails.ErrorInfo{Reason: "NOT_AUTHORIZED", Domain: "vmreplica"}); err == nil {
		denied = detailed
	}
	return denied.Err()
}

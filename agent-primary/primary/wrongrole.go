package primary

import (
	"context"

	"google.golang.org/grpc"

	"vmreplica/internal/failure"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func wrongRole() error {
	return failure.New(failure.Precondition, failure.ReasonWrongRole, "this is a primary; ask the replica").
		Try("Call the replica's agent: vmreplica --server HOST:7443")
}

// wrongAuthorization answers what only a replica can do.
type wrongAuthorization struct {
	vmreplicav1.UnimplementedAuthorizationServiceServer
}

func (wrongAuthorization) CreateAuthorization(context.Context, *vmreplicav1.CreateAuthorizationRequest) (*vmreplicav1.Authorization, error) {
	return nil, wrongRole()
}

func (wrongAuthorization) GetAuthorization(context.Context, *vmreplicav1.GetAuthorizationRequest) (*vmreplicav1.Authorization, error) {
	return nil, wrongRole()
}

func (wrongAuthorization) ListAuthorizations(
	context.Context, *vmreplicav1.ListAuthorizationsRequest,
) (*vmreplicav1.ListAuthorizationsResponse, error) {
	return nil, wrongRole()
}

func (wrongAuthorization) UpdateAuthorization(context.Context, *vmreplicav1.UpdateAuthorizationRequest) (*vmreplicav1.Authorization, error) {
	return nil, wrongRole()
}

func (wrongAuthorization) DeleteAuthorization(
	context.Context, *vmreplicav1.DeleteAuthorizationRequest,
) (*vmreplicav1.DeleteAuthorizationResponse, error) {
	return nil, wrongRole()
}

// wrongTransfer answers the calls of other primaries.
type wrongTransfer struct {
	vmreplicav1.UnimplementedTransferServiceServer
}

func (wrongTransfer) Hello(context.Context, *vmreplicav1.HelloRequest) (*vmreplicav1.HelloResponse, error) {
	return nil, wrongRole()
}

func (wrongTransfer) Reconcile(context.Context, *vmreplicav1.ReconcileRequest) (*vmreplicav1.ReconcileResponse, error) {
	return nil, wrongRole()
}

func (wrongTransfer) PrepareReplica(context.Context, *vmreplicav1.PrepareReplicaRequest) (*vmreplicav1.PrepareReplicaResponse, error) {
	return nil, wrongRole()
}

func (wrongTransfer) BeginTransfer(context.Context, *vmreplicav1.BeginTransferRequest) (*vmreplicav1.BeginTransferResponse, error) {
	return nil, wrongRole()
}

func (wrongTransfer) Transfer(grpc.BidiStreamingServer[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse]) error {
	return wrongRole()
}

func (wrongTransfer) CommitTransfer(context.Context, *vmreplicav1.CommitTransferRequest) (*vmreplicav1.CommitTransferResponse, error) {
	return nil, wrongRole()
}

func (wrongTransfer) AbortTransfer(context.Context, *vmreplicav1.AbortTransferRequest) (*vmreplicav1.AbortTransferResponse, error) {
	return nil, wrongRole()
}

func (wrongTransfer) ReleaseReplica(context.Context, *vmreplicav1.ReleaseReplicaRequest) (*vmreplicav1.ReleaseReplicaResponse, error) {
	return nil, wrongRole()
}

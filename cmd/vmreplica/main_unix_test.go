//go:build !windows

package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"

	"vmreplica/internal/pki"
	v1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

// asProgram makes this test binary be the program.
const asProgram = "VMREPLICA_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run())
	}
	os.Exit(m.Run())
}

// endless is an agent whose resync never ends. It says when it is watched and when it was cancelled.
type endless struct {
	v1.UnimplementedResyncServiceServer
	watched, cancelled chan struct{}
}

func (e *endless) StartResync(_ context.Context, r *v1.StartResyncRequest) (*v1.Resync, error) {
	return &v1.Resync{Id: "0123456789abcdef0123456789abcdef", Vm: r.GetVm(), Kind: r.GetKind(), State: v1.ResyncState_RESYNC_STATE_COMPARING}, nil
}

func (e *endless) WatchResync(_ *v1.WatchResyncRequest, stream grpc.ServerStreamingServer[v1.Resync]) error {
	e.watched <- struct{}{}
	<-stream.Context().Done()
	return stream.Context().Err()
}

func (e *endless) CancelResync(context.Context, *v1.CancelResyncRequest) (*v1.Resync, error) {
	close(e.cancelled)
	return &v1.Resync{}, nil
}

// serve serves the agent and answers its address and an operator's certificate.
func (e *endless) serve(t *testing.T) (address, tlsDir string) {
	t.Helper()
	directory := filepath.Join(t.TempDir(), "pki")
	if _, err := pki.Init(directory, ""); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"primary", "operator"} {
		if _, err := pki.Issue(directory, role, role, nil); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	credentials, err := transport.LoadCredentials(filepath.Join(directory, "primary"), log)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := transport.NewServer(transport.ServerConfig{Credentials: credentials, Log: log})
	v1.RegisterResyncServiceServer(server, e)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().String(), filepath.Join(directory, "operator")
}

func TestASignalEndsTheWaitingAndNotTheResync(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		agent := &endless{watched: make(chan struct{}, 1), cancelled: make(chan struct{})}
		address, tlsDir := agent.serve(t)
		program := exec.CommandContext(t.Context(), os.Args[0], "resync", "web01", "--wait")
		program.Env = append(os.Environ(), asProgram+"=1", "VMREPLICA_SERVER="+address, "VMREPLICA_TLS_DIR="+tlsDir)
		var out, errs bytes.Buffer
		program.Stdout, program.Stderr = &out, &errs
		if err := program.Start(); err != nil {
			t.Fatal(err)
		}
		<-agent.watched
		if err := program.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		err := program.Wait()
		if code := program.ProcessState.ExitCode(); code != 130 || out.Len() > 0 ||
			!strings.Contains(errs.String(), "Interrupted: the resync of the VM web01 goes on.\n") {
			t.Errorf("%v: ended with %d, %v\n%s%s", signal, code, err, out.String(), errs.String())
		}
		select {
		case <-agent.cancelled:
			t.Errorf("%v: the resync was cancelled", signal)
		default:
		}
	}
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// output runs a program to its end and answers what it wrote to stdout; the error holds what it wrote to stderr.
func output(ctx context.Context, name string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// every runs commands until one fails.
func every(ctx context.Context, commands ...[]string) error {
	for _, c := range commands {
		if _, err := output(ctx, c[0], c[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// inNamespace is a command as it runs in a network namespace; empty is this one.
func inNamespace(namespace string, command ...string) []string {
	if namespace == "" {
		return command
	}
	return append([]string{"ip", "netns", "exec", namespace}, command...)
}

package daemon

import (
	"io"
	"log/slog"
)

// NewLogger writes lines of format text or json, at level debug, info, warn or error and above.
func NewLogger(out io.Writer, format, level string) (*slog.Logger, error) {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	least, known := levels[level]
	if !known {
		return nil, wrong("log-level", level, "debug, info, warn or error")
	}
	options := &slog.HandlerOptions{Level: least}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(out, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(out, options)), nil
	}
	return nil, wrong("log-format", format, "text or json")
}

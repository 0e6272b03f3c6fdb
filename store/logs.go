package store

import (
	"context"
	"log/slog"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// logs receives what the API server (klog) and etcd (zap) say. What they call
// information is detail here; what they call errors they retry by themselves,
// so it is a warning here. While we start or stop, it is no news that something
// is not there yet or no longer: if that does not pass, Run says why.
type logs struct {
	steady *atomic.Bool
	out    *slog.Logger
}

// redirectLogs sends klog to log and returns where etcd shall write.
// klog has one output per process; the last Store wins.
func redirectLogs(log *slog.Logger) logs {
	l := logs{steady: new(atomic.Bool), out: log}
	klog.SetSlogLogger(slog.New(demote{logs: l, next: log.With("component", "apiserver").Handler()}))
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // our own loopback clients need no advice
	return l
}

func (l logs) started() { l.steady.Store(true) }

func (l logs) stopping() { l.steady.Store(false) }

// level says at which level of ours a foreign message is worth noting.
func (l logs) level(foreign slog.Level) slog.Level {
	switch {
	case foreign < slog.LevelError, !l.steady.Load():
		return slog.LevelDebug
	default:
		return slog.LevelWarn
	}
}

// demote is a slog.Handler that lowers levels as logs says.
type demote struct {
	logs logs
	next slog.Handler
}

func (d demote) Enabled(ctx context.Context, level slog.Level) bool {
	// Below Info are klog's verbosity levels, which nobody asked for.
	return level >= slog.LevelInfo && d.next.Enabled(ctx, d.logs.level(level))
}

func (d demote) Handle(ctx context.Context, r slog.Record) error {
	r.Level = d.logs.level(r.Level)
	if !d.next.Enabled(ctx, r.Level) {
		return nil
	}
	return d.next.Handle(ctx, r)
}

func (d demote) WithAttrs(attrs []slog.Attr) slog.Handler {
	return demote{d.logs, d.next.WithAttrs(attrs)}
}

func (d demote) WithGroup(name string) slog.Handler {
	return demote{d.logs, d.next.WithGroup(name)}
}

// etcdLogger returns a zap logger that writes to the same place.
func (l logs) etcdLogger() *zap.Logger {
	return zap.New(zapToSlog{logs: l, out: l.out.With("component", "etcd")})
}

// zapToSlog is a zapcore.Core over slog.
type zapToSlog struct {
	logs logs
	out  *slog.Logger
}

var zapLevels = map[zapcore.Level]slog.Level{
	zapcore.DebugLevel: slog.LevelDebug,
	zapcore.InfoLevel:  slog.LevelInfo,
	zapcore.WarnLevel:  slog.LevelWarn,
}

func (z zapToSlog) level(l zapcore.Level) slog.Level {
	foreign, ok := zapLevels[l]
	if !ok {
		foreign = slog.LevelError
	}
	return z.logs.level(foreign)
}

func (z zapToSlog) Enabled(l zapcore.Level) bool {
	return l > zapcore.DebugLevel && z.out.Enabled(context.Background(), z.level(l))
}

func (z zapToSlog) With(fields []zapcore.Field) zapcore.Core {
	return zapToSlog{z.logs, z.out.With(zapArgs(fields)...)}
}

func (z zapToSlog) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !z.Enabled(e.Level) {
		return c
	}
	return c.AddCore(e, z)
}

func (z zapToSlog) Write(e zapcore.Entry, fields []zapcore.Field) error {
	z.out.Log(context.Background(), z.level(e.Level), e.Message, zapArgs(fields)...)
	return nil
}

func (zapToSlog) Sync() error { return nil }

func zapArgs(fields []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	args := make([]any, 0, len(fields))
	for _, f := range fields {
		f.AddTo(enc)
		if v, ok := enc.Fields[f.Key]; ok {
			args = append(args, slog.Any(f.Key, v))
		}
	}
	return args
}

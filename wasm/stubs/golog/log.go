// Package log stands in for go-log in the tab: errors go to slog's default
// logger, which writes to the browser's console, and all else is dropped, as
// go-log does unless an environment variable says otherwise; a tab has none.
package log

import (
	"context"
	"fmt"
	"log/slog"

	"go.uber.org/zap"
)

// A LogLevel says how much a log entry matters.
type LogLevel = zap.Level

// The levels that callers ask about.
const (
	LevelDebug = zap.DebugLevel
	LevelInfo  = zap.InfoLevel
	LevelWarn  = zap.WarnLevel
	LevelError = zap.ErrorLevel
)

// A ZapEventLogger logs for one subsystem.
type ZapEventLogger struct{ system string }

// Logger returns the logger of a subsystem.
func Logger(system string) *ZapEventLogger { return &ZapEventLogger{system} }

// Desugar returns a logger that logs nothing.
func (*ZapEventLogger) Desugar() *zap.Logger { return &zap.Logger{} }

// LevelEnabled tells whether entries of a level are logged.
func (*ZapEventLogger) LevelEnabled(l LogLevel) bool { return l >= LevelError }

func (l *ZapEventLogger) write(message string, keysAndValues ...any) {
	slog.Default().With("system", l.system).Log(context.Background(), slog.LevelError, message, keysAndValues...)
}

// Error logs its arguments as fmt.Sprint prints them.
func (l *ZapEventLogger) Error(args ...any) { l.write(fmt.Sprint(args...)) }

// Errorf logs as fmt.Sprintf prints.
func (l *ZapEventLogger) Errorf(format string, args ...any) { l.write(fmt.Sprintf(format, args...)) }

// Errorw logs a message and its attributes.
func (l *ZapEventLogger) Errorw(message string, keysAndValues ...any) {
	l.write(message, keysAndValues...)
}

// What follows drops its arguments.

func (*ZapEventLogger) Debug(...any)          {}
func (*ZapEventLogger) Debugf(string, ...any) {}
func (*ZapEventLogger) Debugw(string, ...any) {}
func (*ZapEventLogger) Info(...any)           {}
func (*ZapEventLogger) Infof(string, ...any)  {}
func (*ZapEventLogger) Infow(string, ...any)  {}
func (*ZapEventLogger) Warn(...any)           {}
func (*ZapEventLogger) Warnf(string, ...any)  {}
func (*ZapEventLogger) Warnw(string, ...any)  {}

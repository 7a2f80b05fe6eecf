// Package zap stands in for zap in the tab: of it, boxo's Bitswap server only
// asks whether debugging is on, and go-log, which builds on it, is a stub too.
package zap

// A Level says how much a log entry matters.
type Level int8

// The levels, as zap has them.
const (
	DebugLevel Level = iota - 1
	InfoLevel
	WarnLevel
	ErrorLevel
)

// A Logger logs nothing.
type Logger struct{}

// A CheckedEntry cannot be had here.
type CheckedEntry struct{}

// Check returns nil: the entry is not to be written.
func (*Logger) Check(Level, string) *CheckedEntry { return nil }

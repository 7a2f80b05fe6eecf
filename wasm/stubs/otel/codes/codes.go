// Package codes has the statuses of spans, which nothing reads in the tab.
package codes

// A Code is a span's status.
type Code uint32

// The statuses, as OpenTelemetry has them.
const (
	Unset Code = iota
	Error
	Ok
)

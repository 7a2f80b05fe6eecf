// Package trace stands in for OpenTelemetry's in the tab: spans record nothing.
package trace

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
)

// A Span records nothing.
type Span interface {
	End(...SpanEndOption)
	AddEvent(string, ...EventOption)
	IsRecording() bool
	RecordError(error, ...EventOption)
	SetStatus(codes.Code, string)
	SetAttributes(...attribute.KeyValue)
}

// A Tracer starts spans.
type Tracer struct{}

// Options, which hold nothing.
type (
	SpanStartOption interface{ option() }
	SpanEndOption   interface{ option() }
	EventOption     interface{ option() }
	// A SpanStartEventOption may be given to spans and to events.
	SpanStartEventOption interface{ option() }
)

type none struct{}

func (none) option()                             {}
func (none) End(...SpanEndOption)                {}
func (none) AddEvent(string, ...EventOption)     {}
func (none) IsRecording() bool                   { return false }
func (none) RecordError(error, ...EventOption)   {}
func (none) SetStatus(codes.Code, string)        {}
func (none) SetAttributes(...attribute.KeyValue) {}

// Start returns ctx and a span that records nothing.
func (Tracer) Start(ctx context.Context, _ string, _ ...SpanStartOption) (context.Context, Span) {
	return ctx, none{}
}

// SpanFromContext returns a span that records nothing.
func SpanFromContext(context.Context) Span { return none{} }

// ContextWithSpan returns ctx.
func ContextWithSpan(ctx context.Context, _ Span) context.Context { return ctx }

// WithAttributes is an option that holds nothing.
func WithAttributes(...attribute.KeyValue) SpanStartEventOption { return none{} }

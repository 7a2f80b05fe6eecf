package content

import (
	"context"
	"sync"
)

type aheadKey struct{}

// Ahead returns a context for fetching blocks that nobody waits for yet, and a
// function to be called, at most once, when somebody does. An exchange may take
// its time for the former, to spare a relay; [Due] tells it. Without Ahead,
// whoever asks waits from the start.
func Ahead(ctx context.Context) (_ context.Context, due func()) {
	ch := make(chan struct{})
	return context.WithValue(ctx, aheadKey{}, (<-chan struct{})(ch)), sync.OnceFunc(func() { close(ch) })
}

// Due returns the channel that is closed when somebody waits for what is
// fetched with ctx: nil if that is so from the start.
func Due(ctx context.Context) <-chan struct{} {
	ch, _ := ctx.Value(aheadKey{}).(<-chan struct{})
	return ch
}

package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/webfabric/weft/relay/client"
)

const (
	// Another relay named by URL is asked for its addresses each othersEach,
	// and while it does not answer after a pause that starts at othersRetry
	// and doubles; each multiplied by 0.5 to 1.5.
	othersEach  = 5 * time.Minute
	othersRetry = time.Second
	// maxOthers is how many other relays may be named: a node stays connected
	// to all of them.
	maxOthers = 8
	// othersNote is the note in the store that says what they said last.
	othersNote = "relays"
)

// others are the site's other relays, which visitors are told of: the death of
// one is then no matter to those who are there. What they said is kept, since
// a relay may start while they are away.
type others struct {
	self  peer.ID
	notes notes
	log   *slog.Logger
	urls  []string
	fixed []string // multiaddrs

	mu   sync.Mutex
	said map[string][]string // by URL: addresses, as it said last
}

// notes are kept from one start to the next; [store.Store] does.
type notes interface {
	Note(name string) ([]byte, error)
	SetNote(name string, b []byte) error
}

// newOthers reads what Config.Relays names: URLs, or multiaddrs with a peer ID.
func newOthers(names []string, self peer.ID, notes notes, log *slog.Logger) (*others, error) {
	o := &others{self: self, notes: notes, log: log, said: map[string][]string{}}
	if len(names) > maxOthers {
		return nil, fmt.Errorf("server: %d other relays, at most %d", len(names), maxOthers)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "/") {
			a, err := ma.NewMultiaddr(name)
			if err != nil {
				return nil, fmt.Errorf("server: relay %q: %w", name, err)
			}
			place, id := peer.SplitAddr(a)
			if place == nil || id == "" || !isWebSocket(place) {
				return nil, fmt.Errorf("server: relay %q: want a WebSocket address and /p2p/ID", name)
			}
			if id != self {
				o.fixed = append(o.fixed, name)
			}
			continue
		}
		u, err := url.Parse(name)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return nil, fmt.Errorf("server: relay %q: want one like https://relay.example, or a multiaddr", name)
		}
		o.urls = append(o.urls, u.Scheme+"://"+u.Host)
	}
	o.remember()
	return o, nil
}

// remember takes over what the relays named now said before.
func (o *others) remember() {
	b, err := o.notes.Note(othersNote)
	if err != nil || b == nil {
		if err != nil {
			o.log.Warn("what other relays said is not known any more", "err", err)
		}
		return
	}
	var said map[string][]string
	if err := json.Unmarshal(b, &said); err != nil {
		o.log.Warn("what other relays said is not known any more", "err", err)
		return
	}
	for _, u := range o.urls {
		if addrs, ok := said[u]; ok {
			o.said[u] = addrs
		}
	}
}

func isWebSocket(a ma.Multiaddr) bool {
	for _, c := range a {
		if code := c.Protocol().Code; code == ma.P_WS || code == ma.P_WSS {
			return true
		}
	}
	return false
}

// addrs are the addresses known now, each with its peer ID.
func (o *others) addrs() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := o.fixed[:len(o.fixed):len(o.fixed)]
	for _, u := range o.urls {
		out = append(out, o.said[u]...)
	}
	return out
}

// run keeps asking those named by URL, until ctx ends.
func (o *others) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, u := range o.urls {
		wg.Go(func() { o.ask(ctx, u) })
	}
	wg.Wait()
}

func (o *others) ask(ctx context.Context, u string) {
	for pause := othersRetry; ; {
		r, err := client.Find(ctx, u, "")
		wait := pause
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if pause == othersRetry {
				o.log.Warn("another relay of the site does not answer", "url", u, "err", err)
			}
			pause = min(2*pause, othersEach)
		default:
			pause, wait = othersRetry, othersEach
			o.take(u, r)
		}
		t := time.NewTimer(time.Duration((0.5 + rand.Float64()) * float64(wait)))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// take keeps what the relay at u said. One that is this relay itself, so that
// all relays of a site can be given the same list, is left out.
func (o *others) take(u string, r client.Relay) {
	var addrs []string
	for _, a := range r.Addrs {
		if r.ID != o.self && isWebSocket(a) {
			addrs = append(addrs, a.Encapsulate(ma.StringCast("/p2p/"+r.ID.String())).String())
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if slices.Equal(o.said[u], addrs) {
		return
	}
	o.said[u] = addrs
	b, err := json.Marshal(o.said)
	if err == nil {
		err = o.notes.SetNote(othersNote, b)
	}
	if err != nil {
		o.log.Warn("what other relays said is not kept", "err", err)
	}
}

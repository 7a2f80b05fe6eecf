//go:build js && wasm

package wsdial

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// The far end is scripts/wasmexec's.
func dial(t *testing.T, do string) *Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := Dial(ctx, os.Getenv("WEFT_TEST_WS")+"?do="+do)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestEcho(t *testing.T) {
	c := dial(t, "echo")
	want := make([]byte, 8<<20) // many times what the browser may hold unsent
	rand.Read(want)
	wrote := make(chan error, 1)
	go func() {
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 100_000)
			if _, err := c.Write(rest[:n]); err != nil {
				wrote <- err
				return
			}
			rest = rest[n:]
		}
		wrote <- nil
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("what came back is not what was sent")
	}
}

func TestEnd(t *testing.T) {
	for _, tt := range []struct {
		do, want string
		err      error
	}{
		{do: "bye", want: "bye", err: nil}, // io.EOF, which ReadAll takes for the end
		{do: "reset", err: ErrReset},
		{do: "text", err: ErrReset},
		{do: "flood", err: ErrOverflow},
	} {
		t.Run(tt.do, func(t *testing.T) {
			c := dial(t, tt.do)
			if tt.do == "flood" {
				<-c.closed // nobody reads meanwhile
			}
			got, err := io.ReadAll(c)
			if string(got) != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("ReadAll = %d bytes, %v; want %q, %v", len(got), err, tt.want, tt.err)
			}
			if _, err := c.Write([]byte("x")); err == nil {
				t.Error("Write after the end succeeded")
			}
		})
	}
}

func TestBackpressure(t *testing.T) {
	c := dial(t, "stall")
	if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	// Far more than the browser and the kernel hold together.
	sent, err := 0, error(nil)
	for buf := make([]byte, 256<<10); err == nil && sent < 1<<30; {
		var n int
		n, err = c.Write(buf)
		sent += n
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("wrote %d bytes to one who does not read: %v", sent, err)
	}
}

func TestDeadline(t *testing.T) {
	c := dial(t, "echo")
	buf := make([]byte, 4)
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read = %v", err)
	}
	c.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read = %v", err)
	}
	c.SetDeadline(time.Time{})
	if _, err := c.Write([]byte("more")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "more" {
		t.Errorf("Read = %q, %v", buf, err)
	}
}

func TestClose(t *testing.T) {
	c := dial(t, "stall")
	time.AfterFunc(10*time.Millisecond, func() { c.Close() })
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read = %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write = %v", err)
	}
}

func TestDialErrors(t *testing.T) {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	for _, tt := range []struct {
		name, url string
		ctx       context.Context
		err       error
	}{
		{"refused", os.Getenv("WEFT_TEST_WS") + "?do=refuse", t.Context(), ErrRefused},
		{"no listener", "ws://127.0.0.1:1/", t.Context(), ErrRefused},
		{"no URL", "nonsense:", t.Context(), ErrRefused},
		{"cancelled", os.Getenv("WEFT_TEST_WS"), ctx, why},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Dial(tt.ctx, tt.url)
			if !errors.Is(err, tt.err) {
				t.Errorf("Dial = %v, want %v", err, tt.err)
			}
			if err == nil {
				c.Close()
			}
		})
	}
}

package webrtc

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReadSignal(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     signal
		err      error
	}{
		// js-libp2p's encoding of {type: SDP_OFFER, data: "v=0"} and so on.
		{name: "offer", in: "\x07\x08\x00\x12\x03v=0", want: signal{sdpOffer, "v=0"}},
		{name: "answer", in: "\x07\x08\x01\x12\x03v=0", want: signal{sdpAnswer, "v=0"}},
		{name: "candidate", in: "\x06\x08\x02\x12\x02{}", want: signal{iceCandidate, "{}"}},
		{name: "no data", in: "\x02\x08\x02", want: signal{kind: iceCandidate}},
		{name: "no type", in: "\x05\x12\x03v=0", err: ErrSignalling},
		{name: "unknown type", in: "\x02\x08\x03", err: ErrSignalling},
		{name: "too long", in: "\x80\x80\x04", err: ErrSignalling},
		{name: "cut off", in: "\x07\x08", err: io.ErrUnexpectedEOF},
		{name: "end", in: "", err: io.EOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readSignal(bufio.NewReader(strings.NewReader(tt.in)))
			if !errors.Is(err, tt.err) || err == nil && got != tt.want {
				t.Fatalf("readSignal(%q) = %v, %v; want %v, %v", tt.in, got, err, tt.want, tt.err)
			}
			if err == nil && tt.want.data != "" {
				if b := got.append(nil); string(b) != tt.in {
					t.Errorf("append = %q, want %q", b, tt.in)
				}
			}
		})
	}
}

func FuzzReadSignal(f *testing.F) {
	f.Add([]byte("\x07\x08\x00\x12\x03v=0"))
	f.Add(signal{iceCandidate, `{"candidate":"","sdpMid":"0"}`}.append(nil))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := readSignal(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		if len(s.data) > maxSignal {
			t.Fatalf("%d bytes of data", len(s.data))
		}
		if len(s.data)+8 > maxSignal {
			return // its own encoding may be longer than the one it came in
		}
		again, err := readSignal(bufio.NewReader(bytes.NewReader(s.append(nil))))
		if err != nil || again != s {
			t.Errorf("encoded again: %v, %v; want %v", again, err, s)
		}
	})
}

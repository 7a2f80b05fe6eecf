package webrtc

import (
	"bytes"
	"errors"
	"testing"
)

func TestFrameSize(t *testing.T) {
	b := appendFrame(nil, make([]byte, maxPayload))
	if len(b) > MaxFrame {
		t.Errorf("the largest frame has %d bytes, over %d", len(b), MaxFrame)
	}
}

// What js-libp2p 8.6's @libp2p/webrtc 6.0.33 sends: protons encodes both fields
// where they are set, and the length is a message of its own.
func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		name    string
		in      []string // messages
		flags   []flag
		payload string
		err     error
	}{
		{name: "payload", in: []string{"\x04\x12\x02hi"}, flags: []flag{noFlag}, payload: "hi"},
		{name: "js: length first", in: []string{"\x04", "\x12\x02hi"}, flags: []flag{noFlag}, payload: "hi"},
		{name: "byte by byte", in: []string{"\x04", "\x12", "\x02", "h", "i"}, flags: []flag{noFlag}, payload: "hi"},
		{name: "two in one", in: []string{"\x04\x12\x02hi\x02\x08\x00"}, flags: []flag{noFlag, fin}, payload: "hi"},
		{name: "flag and payload", in: []string{"\x06\x08\x00\x12\x02hi"}, flags: []flag{fin}, payload: "hi"},
		{name: "all flags", in: []string{"\x02\x08\x00", "\x02\x08\x01", "\x02\x08\x02", "\x02\x08\x03"}, flags: []flag{fin, stopSending, reset, finAck}},
		{name: "unknown field", in: []string{"\x06\x18\x07\x12\x02hi"}, flags: []flag{noFlag}, payload: "hi"},
		{name: "empty", in: []string{"\x00"}, flags: []flag{noFlag}},
		{name: "cut off", in: []string{"\x04\x12"}},
		{name: "unknown flag", in: []string{"\x02\x08\x04"}, err: ErrFrame},
		{name: "payload beyond the frame", in: []string{"\x03\x12\x02h"}, err: ErrFrame},
		{name: "too long", in: []string{"\x81\x80\x01"}, err: ErrFrame},
		{name: "endless length", in: []string{"\x80\x80\x80\x80"}, err: ErrFrame},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var d decoder
			var flags []flag
			var payload []byte
			var err error
			for _, m := range tt.in {
				if err = d.decode([]byte(m), func(f frame) {
					flags = append(flags, f.flag)
					payload = append(payload, f.payload...)
				}); err != nil {
					break
				}
			}
			if !errors.Is(err, tt.err) || string(payload) != tt.payload {
				t.Errorf("decode(%q) = %q, %v; want %q, %v", tt.in, payload, err, tt.payload, tt.err)
			}
			if len(flags) != len(tt.flags) {
				t.Fatalf("decode(%q) found flags %v, want %v", tt.in, flags, tt.flags)
			}
			for i := range flags {
				if flags[i] != tt.flags[i] {
					t.Errorf("decode(%q) found flags %v, want %v", tt.in, flags, tt.flags)
				}
			}
		})
	}
}

// FuzzDecode: frames are the same however the bytes are cut; what is kept is
// bounded; encoding what was decoded and decoding it again gives the same.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x04\x12\x02hi\x02\x08\x00"), 1)
	f.Add(appendFlag(appendFrame(nil, bytes.Repeat([]byte("x"), 300)), fin), 7)
	f.Add([]byte("\x80\x80\x01"), 2)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		all := func(parts ...[]byte) (flags []flag, payload []byte, err error) {
			var d decoder
			for _, p := range parts {
				if err = d.decode(bytes.Clone(p), func(f frame) {
					flags = append(flags, f.flag)
					payload = append(payload, f.payload...)
				}); err != nil {
					break
				}
				if len(d.rest) > MaxFrame+3 {
					t.Fatalf("keeps %d bytes", len(d.rest))
				}
			}
			return
		}
		flags, payload, err := all(b)
		if cut > 0 && cut < len(b) {
			flags2, payload2, err2 := all(b[:cut], b[cut:])
			if !bytes.Equal(payload, payload2) || len(flags) != len(flags2) || (err == nil) != (err2 == nil) {
				t.Errorf("cut at %d: %d frames, %v; whole: %d frames, %v", cut, len(flags2), err2, len(flags), err)
			}
		}
		var again []byte
		for rest := payload; len(rest) > 0; {
			n := min(len(rest), maxPayload)
			again = appendFrame(again, rest[:n])
			rest = rest[n:]
		}
		if _, p, err := all(again); err != nil || !bytes.Equal(p, payload) {
			t.Errorf("encoded again: %q, %v; want %q", p, err, payload)
		}
	})
}

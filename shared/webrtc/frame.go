package webrtc

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// flag is the field of that name in webrtc.pb's Message.
type flag int8

// The flags, by their numbers on the wire; noFlag means that there is none.
const (
	noFlag      flag = -1
	fin         flag = 0 // no more will be sent
	stopSending flag = 1 // no more will be read
	reset       flag = 2 // neither
	finAck      flag = 3 // FIN and all before it was received
)

// Fields of Message, and the bytes that a frame adds to its payload: two
// lengths of at most three bytes and two tags with a flag.
const (
	fieldFlag     = 1
	fieldMessage  = 2
	frameOverhead = 3 + 1 + 3
	maxPayload    = MaxFrame - frameOverhead
)

// appendFrame appends the frame of payload, at most maxPayload bytes.
func appendFrame(b, payload []byte) []byte {
	n := protowire.SizeTag(fieldMessage) + protowire.SizeBytes(len(payload))
	b = protowire.AppendVarint(b, uint64(n))
	b = protowire.AppendTag(b, fieldMessage, protowire.BytesType)
	return protowire.AppendBytes(b, payload)
}

// appendFlag appends a frame that holds f only.
func appendFlag(b []byte, f flag) []byte {
	return append(b, 2, fieldFlag<<3|byte(protowire.VarintType), byte(f))
}

// A frame is a decoded Message.
type frame struct {
	flag    flag
	payload []byte
}

// parseFrame decodes a Message without its length. The payload is part of b.
func parseFrame(b []byte) (frame, error) {
	f := frame{flag: noFlag}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return f, fmt.Errorf("%w: %v", ErrFrame, protowire.ParseError(n))
		}
		b = b[n:]
		switch {
		case num == fieldFlag && typ == protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return f, fmt.Errorf("%w: flag: %v", ErrFrame, protowire.ParseError(n))
			}
			if v > uint64(finAck) {
				return f, fmt.Errorf("%w: flag %d", ErrFrame, v)
			}
			f.flag, b = flag(v), b[n:]
		case num == fieldMessage && typ == protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return f, fmt.Errorf("%w: payload: %v", ErrFrame, protowire.ParseError(n))
			}
			f.payload, b = v, b[n:]
		default:
			n := protowire.ConsumeFieldValue(num, typ, b)
			if n < 0 {
				return f, fmt.Errorf("%w: field %d: %v", ErrFrame, num, protowire.ParseError(n))
			}
			b = b[n:]
		}
	}
	return f, nil
}

// A decoder cuts what a data channel carries into frames. Messages and frames
// need not agree: js-libp2p sends a frame's length as a message of its own, and
// this package several frames in one.
type decoder struct {
	rest []byte // the beginning of a frame, less than MaxFrame and its length
}

// decode calls each for every frame that b completes, in order. The payloads
// are parts of b, or of a copy that nobody else has. It stops at an error.
func (d *decoder) decode(b []byte, each func(frame)) error {
	if len(d.rest) > 0 {
		b, d.rest = append(d.rest, b...), nil
	}
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n < 0 || size > MaxFrame || n == 0 && len(b) > binary.MaxVarintLen16 {
			return fmt.Errorf("%w: length", ErrFrame)
		}
		if n == 0 || uint64(len(b)-n) < size {
			d.rest = append([]byte(nil), b...)
			return nil
		}
		f, err := parseFrame(b[n : n+int(size)])
		if err != nil {
			return err
		}
		b = b[n+int(size):]
		each(f)
	}
	return nil
}

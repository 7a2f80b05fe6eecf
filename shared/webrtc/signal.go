package webrtc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// kind is the type of a signalling message.
type kind uint8

// The kinds, by their numbers on the wire.
const (
	sdpOffer     kind = 0
	sdpAnswer    kind = 1
	iceCandidate kind = 2
)

const (
	// maxSignal bounds a signalling message: a description with many
	// candidates in it has a few KiB.
	maxSignal = 32 << 10
	// maxCandidates is how many candidates a peer may send.
	maxCandidates = 128
)

// A signal is a message of the signalling protocol.
type signal struct {
	kind kind
	data string
}

// append appends the message with its length.
func (s signal) append(b []byte) []byte {
	n := protowire.SizeTag(1) + protowire.SizeVarint(uint64(s.kind)) + protowire.SizeTag(2) + protowire.SizeBytes(len(s.data))
	b = protowire.AppendVarint(b, uint64(n))
	b = protowire.AppendTag(b, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(s.kind))
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	return protowire.AppendString(b, s.data)
}

// parseSignal decodes a message without its length.
func parseSignal(b []byte) (signal, error) {
	var s signal
	typed := false
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return s, fmt.Errorf("%w: %v", ErrSignalling, protowire.ParseError(n))
		}
		b = b[n:]
		switch {
		case num == 1 && typ == protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 || v > uint64(iceCandidate) {
				return s, fmt.Errorf("%w: type", ErrSignalling)
			}
			s.kind, b, typed = kind(v), b[n:], true
		case num == 2 && typ == protowire.BytesType:
			v, n := protowire.ConsumeString(b)
			if n < 0 {
				return s, fmt.Errorf("%w: data: %v", ErrSignalling, protowire.ParseError(n))
			}
			s.data, b = v, b[n:]
		default:
			n := protowire.ConsumeFieldValue(num, typ, b)
			if n < 0 {
				return s, fmt.Errorf("%w: field %d: %v", ErrSignalling, num, protowire.ParseError(n))
			}
			b = b[n:]
		}
	}
	if !typed {
		return s, fmt.Errorf("%w: no type", ErrSignalling)
	}
	return s, nil
}

// readSignal reads one message. It returns io.EOF between messages only.
func readSignal(r *bufio.Reader) (signal, error) {
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return signal{}, err
	}
	if size > maxSignal {
		return signal{}, fmt.Errorf("%w: %d bytes", ErrSignalling, size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return signal{}, err
	}
	return parseSignal(b)
}

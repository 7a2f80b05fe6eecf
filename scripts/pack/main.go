// Command pack rewrites a linked Go program for wasm so that it compresses
// better. It computes exactly as before.
//
// Usage: go run ./scripts/pack IN.wasm OUT.wasm
//
// Two things are left out, which together are a tenth of what a visitor
// downloads. The linker cuts the data into 100,000 segments at every few zero
// bytes; their headers compress worse than the zeros do, so the segments are
// joined. And each function has tables that give the file and line of an
// instruction, for stack traces only: without them a trace names functions, and
// lines read "?:0". `make wasm` keeps the program with lines as build/node.wasm.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: pack IN.wasm OUT.wasm")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(in, out string) error {
	program, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	packed, err := pack(program)
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	return os.WriteFile(out, packed, 0o755)
}

// dataSection is the data section's id (WebAssembly core specification 5.5.14).
const dataSection = 11

var errMalformed = errors.New("not a program that this version of Go links")

// pack returns program with its data section rewritten.
func pack(program []byte) (packed []byte, err error) {
	defer func() {
		// Every index below is checked by Go; a program that does not fit is no
		// program of ours.
		if recover() != nil {
			packed, err = nil, errMalformed
		}
	}()
	if !bytes.HasPrefix(program, []byte("\x00asm\x01\x00\x00\x00")) {
		return nil, errMalformed
	}
	out := bytes.Clone(program[:8])
	found := false
	for r := (reader{program, 8}); r.at < len(program); {
		start := r.at
		id := r.byte()
		end := int(r.unsigned())
		end += r.at
		if id != dataSection {
			out = append(out, program[start:end]...)
			r.at = end
			continue
		}
		memory, err := readData(&r)
		if err != nil || r.at != end {
			return nil, errMalformed
		}
		if err := dropLines(memory); err != nil {
			return nil, err
		}
		body := writeData(memory)
		out = append(out, dataSection)
		out = binary.AppendUvarint(out, uint64(len(body)))
		out = append(out, body...)
		found = true
	}
	if !found {
		return nil, errMalformed
	}
	return out, nil
}

// readData returns the memory that a data section makes.
func readData(r *reader) ([]byte, error) {
	var memory []byte
	for range r.unsigned() {
		// Active, into memory 0, at a constant: 0, i32.const n, end.
		if r.byte() != 0 || r.byte() != 0x41 {
			return nil, errMalformed
		}
		at := int(r.signed())
		if r.byte() != 0x0b || at < 0 || at > 1<<30 {
			return nil, errMalformed
		}
		size := int(r.unsigned())
		// Segments come in no order.
		memory = append(memory, make([]byte, max(0, at+size-len(memory)))...)
		copy(memory[at:], r.data[r.at:r.at+size])
		r.at += size
	}
	return memory, nil
}

// minGap is the run of zeros, in bytes, at which a segment ends: engines set
// memory to zero, and fewer segments compress better.
const minGap = 4096

// writeData returns a data section's body that makes memory.
func writeData(memory []byte) []byte {
	var segments []byte
	n := uint64(0)
	for at := 0; at < len(memory); {
		if memory[at] == 0 {
			at++
			continue
		}
		end := at + 1 // after the last byte that is not zero
		for i := end; i < len(memory) && i-end < minGap; i++ {
			if memory[i] != 0 {
				end = i + 1
			}
		}
		segments = append(segments, 0, 0x41)
		segments = appendSigned(segments, int64(at))
		segments = append(segments, 0x0b)
		segments = binary.AppendUvarint(segments, uint64(end-at))
		segments = append(segments, memory[at:end]...)
		n++
		at = end
	}
	return append(binary.AppendUvarint(nil, n), segments...)
}

// Where things are in the function table of Go 1.20 to 1.26 (runtime/symtab.go,
// pcHeader; runtime/runtime2.go, _func), in bytes.
const (
	headerSize  = 72
	nfuncAt     = 8
	pctabAt     = 56
	pclnAt      = 64
	funcSP      = 16 // _func.pcsp
	funcFile    = 20
	funcLine    = 24
	funcNPCData = 28
	funcSize    = 44
)

// header begins the table: its magic number, padding, the smallest instruction
// (1) and a pointer's size (8).
var header = []byte{0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8}

// dropLines takes the tables of files and lines out of memory. A function
// whose offset of a table is 0 has none.
func dropLines(memory []byte) error {
	start := bytes.Index(memory, header)
	if start < 0 || bytes.Contains(memory[start+1:], header) {
		return fmt.Errorf("%w: no function table", errMalformed)
	}
	u32 := func(at int) int { return int(binary.LittleEndian.Uint32(memory[at:])) }
	nfunc := u32(start + nfuncAt)
	tables, functions := start+u32(start+pctabAt), start+u32(start+pclnAt)
	if u32(start+headerSize-8) != functions-start || tables >= functions || nfunc == 0 {
		return fmt.Errorf("%w: function table", errMalformed)
	}
	used, dropped := map[int]bool{}, map[int]bool{}
	for i := range nfunc {
		f := functions + u32(functions+8*i+4)
		used[u32(f+funcSP)] = true
		for j := range u32(f + funcNPCData) {
			used[u32(f+funcSize+4*j)] = true
		}
		for _, field := range []int{funcFile, funcLine} {
			dropped[u32(f+field)] = true
			clear(memory[f+field : f+field+4])
		}
	}
	for table := range dropped {
		if table == 0 || used[table] {
			continue
		}
		// Pairs of varints, value and pc, until a value of 0; the first may be 0.
		for at, first := tables+table, true; first || memory[at] != 0; first = false {
			for range 2 {
				for memory[at]&0x80 != 0 {
					memory[at] = 0
					at++
				}
				memory[at] = 0
				at++
			}
			if at >= functions || used[at-tables] && memory[at] != 0 && at-tables != table {
				// It ran into another table: fine only at its own end.
				return fmt.Errorf("%w: table of lines", errMalformed)
			}
		}
	}
	return nil
}

// reader reads the encodings of wasm; it panics at the end.
type reader struct {
	data []byte
	at   int
}

func (r *reader) byte() byte {
	r.at++
	return r.data[r.at-1]
}

func (r *reader) unsigned() uint64 {
	v, n := binary.Uvarint(r.data[r.at:])
	if n <= 0 {
		panic(errMalformed)
	}
	r.at += n
	return v
}

func (r *reader) signed() int64 {
	var v int64
	for shift := 0; ; {
		b := r.byte()
		v |= int64(b&0x7f) << shift
		shift += 7
		if b&0x80 == 0 {
			if b&0x40 != 0 && shift < 64 {
				v |= -1 << shift
			}
			return v
		}
	}
}

func appendSigned(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

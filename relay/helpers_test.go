package main

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
)

// writeNoise writes n bytes to path, the same for one seed.
func writeNoise(path string, seed byte, n int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{seed}), n)
	return errors.Join(err, f.Close())
}

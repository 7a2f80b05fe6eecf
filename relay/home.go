package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"
)

// home is the directory under which a user's keys and stores live.
func home() (string, error) {
	if dir := os.Getenv("WEFT_HOME"); dir != "" {
		return filepath.Abs(dir)
	}
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "weft"), nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no home directory: set WEFT_HOME to a directory for keys and stores: %w", err)
	}
	return filepath.Join(user, ".local", "share", "weft"), nil
}

// roleDir is dir, or where it is empty the directory of role under [home].
func roleDir(dir, role string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	h, err := home()
	if err != nil {
		return "", err
	}
	return filepath.Join(h, role), nil
}

// running says where a relay of this user answers. It is what `weft relay`
// leaves in relay.json under [home] while it runs.
type running struct {
	URL    string  `json:"url"`
	PeerID peer.ID `json:"peerId"`
	PID    int     `json:"pid"`
}

const runningFile = "relay.json"

var errNoRelay = errors.New("no relay is running here: start one with `weft relay`, or name one with --relay URL")

// announce writes r under home. The returned function removes it again, unless
// another relay has taken its place.
func announce(r running) (func(), error) {
	h, err := home()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(h, 0o700); err != nil {
		return nil, err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(h, runningFile)
	tmp, err := os.CreateTemp(h, runningFile+".*")
	if err != nil {
		return nil, err
	}
	_, err = tmp.Write(append(b, '\n'))
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return nil, err
	}
	return func() {
		if now, err := readRunning(); err == nil && now.PID == r.PID {
			os.Remove(path)
		}
	}, nil
}

// readRunning is the reverse of [announce]; its error may wrap errNoRelay.
func readRunning() (running, error) {
	h, err := home()
	if err != nil {
		return running{}, err
	}
	path := filepath.Join(h, runningFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return running{}, errNoRelay
	}
	if err != nil {
		return running{}, err
	}
	var r running
	if err := json.Unmarshal(b, &r); err != nil {
		return running{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// findRelay is the relay named by --relay, or the one running here. The peer ID
// is empty where nothing says which one to expect.
func findRelay(flag string) (running, error) {
	if flag == "" {
		return readRunning()
	}
	u, err := url.Parse(flag)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return running{}, usagef("--relay %q is no URL of a relay: want http://HOST:PORT or https://HOST", flag)
	}
	return running{URL: u.Scheme + "://" + u.Host}, nil
}

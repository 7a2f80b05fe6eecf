package main

import (
	"bufio"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain puts this very program on the PATH of every test as weft.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"weft": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("WEFT_HOME", filepath.Join(env.WorkDir, "home"))
			env.Values["relays"] = map[string]*process{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":  cmdStatus,
			"relay":   cmdRelay,
			"stop":    cmdStop,
			"website": cmdWebsite,
			"lastline": func(ts *testscript.TestScript, _ bool, args []string) {
				lines := strings.Split(strings.TrimSpace(ts.ReadFile("stdout")), "\n")
				ts.Setenv(args[0], lines[len(lines)-1])
			},
			"random": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.ParseInt(args[1], 10, 64)
				ts.Check(err)
				ts.Check(writeNoise(ts.MkAbs(args[0]), 1, n))
			},
		},
	})
}

// cmdStatus runs a command and wants an exit code: status 2 weft serv.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE COMMAND…")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v: %v", args[1:], err)
		}
		got = exit.ExitCode()
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("%v exited with %d, want %s\n%s", args[1:], got, args[0], ts.ReadFile("stderr"))
	}
}

// cmdRelay starts a relay in the background, until the script ends, and sets
// $NAME to its URL: relay NAME [flag…].
func cmdRelay(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: relay NAME [FLAG]…")
	}
	cmd := exec.Command("weft", append([]string{"relay", "--listen", "127.0.0.1:0", "--no-demo", "--data", ts.MkAbs(args[0])}, args[1:]...)...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "WEFT_HOME="+ts.Getenv("WEFT_HOME"))
	p, url, err := startRelay(cmd)
	ts.Check(err)
	ts.Setenv(args[0], url)
	relays(ts)[args[0]] = p
	ts.Defer(func() {
		if err := p.stop(); err != nil {
			ts.Logf("relay %s: %v\n%s", args[0], err, p.stderr.String())
		}
	})
}

// relays are those that a script has started, by name.
func relays(ts *testscript.TestScript) map[string]*process {
	return ts.Value("relays").(map[string]*process)
}

// cmdStop stops a relay with SIGTERM and wants exit code 0: stop NAME.
func cmdStop(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(relays(ts)[args[0]].stop())
}

// cmdWebsite starts a web server that is no relay: website NAME.
func cmdWebsite(ts *testscript.TestScript, _ bool, args []string) {
	srv := httptest.NewServer(http.NotFoundHandler())
	ts.Defer(srv.Close)
	ts.Setenv(args[0], srv.URL)
}

// process is a weft that runs in the background.
type process struct {
	cmd    *exec.Cmd
	stderr *strings.Builder
	ended  chan struct{}
	err    error
}

// startRelay starts a relay and waits for the line with its URL.
func startRelay(cmd *exec.Cmd) (*process, string, error) {
	p := &process{cmd: cmd, stderr: new(strings.Builder), ended: make(chan struct{})}
	cmd.Stderr = p.stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() { p.err = cmd.Wait(); close(p.ended) }()
	if err != nil {
		<-p.ended
		return nil, "", errors.Join(err, errors.New(p.stderr.String()))
	}
	return p, strings.TrimSpace(line), nil
}

// stop asks the process to end, and returns how it did. It may be called again.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(os.Interrupt) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	return p.err
}

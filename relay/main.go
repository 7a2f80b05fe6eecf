// Command weft runs a relay, publishes folders to one, and fetches from one.
//
// This directory is the command line only: each subcommand is one file, which
// reads flags, calls the packages below, and prints. relay/server is the relay,
// relay/publish the publishing side, relay/client what both and `weft get` need
// to speak with a relay.
//
// Results go to stdout, everything else to stderr. It exits with 0 when it has
// done what was asked, 1 when it could not, 2 when it did not understand.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(runMain()) }

// runMain is main with its exit code returned, so that tests can run it.
func runMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal lets the work drain; with the handler gone, a second one
	// ends the process at once.
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], os.Stdout, os.Stderr)
}

// run is the whole program: args without the program's name. A cancelled ctx
// means that the user asked it to stop.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "weft: %v\nRun '%s --help' for what it takes.\n", err, cmd.CommandPath())
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintf(stderr, "weft: interrupted: %v\n", err)
		return exitFailed
	default:
		fmt.Fprintf(stderr, "weft: %v\n", err)
		return exitFailed
	}
}

// usageError is a command line that was not understood: exit code 2.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// takes checks the number of arguments, and names what is missing or too much:
// names are those of the wanted arguments, in order.
func takes(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("%s is missing", names[len(args)])
		case len(args) > len(names):
			return usagef("unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "weft",
		Short: "Turn a site's visitors into the fabric that serves it",
		Long: `Weft turns the visitors of a website into a fabric that serves it: every tab is
a peer-to-peer node, and one small relay lets them find each other.

The keys and stores of this user live under one directory: $WEFT_HOME, else
$XDG_DATA_HOME/weft, else ~/.local/share/weft.`,
		Example: `  weft relay                    # start a relay on http://localhost:8787
  weft publish ./site           # publish a folder to it; prints its root CID
  weft get CID/index.html       # fetch a file, every block verified`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return usagef("unknown command %q: did you mean %s?", args[0], strings.Join(near, " or "))
		}
		return usagef("unknown command %q", args[0])
	}
	root.SuggestionsMinimumDistance = 2
	root.Version = readBuild().Version // weft --version; more by weft version
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(relayCommand(), publishCommand(), getCommand(), lsCommand(),
		idCommand(), assetsCommand(), versionCommand())
	root.SetHelpCommand(helpCommand(root))
	return root
}

// helpCommand is cobra's, except that a command which is none is an error.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Print help about a command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil {
				return &usageError{err}
			}
			if len(rest) > 0 {
				return root.Args(root, rest)
			}
			return cmd.Help()
		},
	}
}

// Command muster trains neural networks on machines that find each other. Each verb has
// a file of its own.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set when a release is built: -ldflags "-X main.version=v1.2.3".
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "muster",
		Short:         "Cooperative deep-learning training outside any scheduler",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(trainCommand(), nodeCommand(), statusCommand(), serversCommand(), whyCommand(), evalCommand(), predictCommand(), generateCommand(), checkpointCommand(), benchCommand(), doctorCommand())
	root.SetFlagErrorFunc(badFlag)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "muster:", strings.ReplaceAll(err.Error(), "\n", "\n  ")) // faults may be several
		stop()
		os.Exit(1)
	}
}

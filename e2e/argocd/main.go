// Command argocd holds the two servers of a released Argo CD that a plugin meets, and a client for the first:
//
//	argocd repo-server [FLAG ...]        the real argocd-repo-server
//	argocd cmp-server [FLAG ...]         the real argocd-cmp-server
//	argocd call ADDRESS METHOD [TIMEOUT] one call to a repo-server: the request as JSON on stdin, the answer on stdout
//
// It is built against two releases: go.mod names the newest, min.mod the oldest that is still supported.
package main

import (
	"fmt"
	"os"

	cmpserver "github.com/argoproj/argo-cd/v3/cmd/argocd-cmp-server/commands"
	reposerver "github.com/argoproj/argo-cd/v3/cmd/argocd-repo-server/commands"
	"github.com/spf13/cobra"
)

func main() {
	command := &cobra.Command{Use: "argocd", SilenceUsage: true, SilenceErrors: true}
	command.AddCommand(named("repo-server", reposerver.NewCommand()), named("cmp-server", cmpserver.NewCommand()), call())
	if err := command.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func named(name string, command *cobra.Command) *cobra.Command {
	command.Use = name
	return command
}

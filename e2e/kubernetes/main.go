// Command kubernetes is the API server of a released Kubernetes, and the etcd that it keeps its objects in:
//
//	kubernetes FOLDER [FLAG ...]   the real kube-apiserver with these flags; what etcd keeps is in the folder
//
// Nothing but loopback is listened on, unless a flag says so.
package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: kubernetes FOLDER [FLAG ...]")
		os.Exit(2)
	}
	address, err := keep(filepath.Join(os.Args[1], "etcd"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	command := app.NewAPIServerCommand()
	command.SetArgs(append([]string{"--etcd-servers=http://" + address, "--bind-address=127.0.0.1"}, os.Args[2:]...))
	os.Exit(cli.Run(command))
}

// keep starts etcd on a free port. It ends with the process.
func keep(folder string) (string, error) {
	loopback := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config := embed.NewConfig()
	config.Dir = folder
	config.LogLevel = "error"
	config.ListenClientUrls, config.ListenPeerUrls = loopback, loopback
	config.UnsafeNoFsync = true
	server, err := embed.StartEtcd(config)
	if err != nil {
		return "", err
	}
	<-server.Server.ReadyNotify()
	return server.Clients[0].Addr().String(), nil
}

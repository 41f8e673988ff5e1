// Command controlplane runs a real Kubernetes control plane for development and tests: kube-apiserver with an
// embedded etcd in one process, and the few controllers of kube-controller-manager that a custom resource meets
// (garbage collection, namespaces, service accounts, role aggregation) in a second one.
//
// It listens on loopback only, keeps everything in one directory, and syncs nothing to disk: it is not for data
// that anybody wants back.
package main

import (
	"flag"
	"fmt"
	"os"

	"k8s.io/component-base/cli"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

// controllersRole is the subcommand that this program starts itself with: both servers set up logging for their
// whole process and refuse to do it twice.
const controllersRole = "controllers"

func main() {
	if len(os.Args) > 1 && os.Args[1] == controllersRole {
		command := controllers.NewControllerManagerCommand()
		command.SetArgs(os.Args[2:])
		os.Exit(cli.Run(command))
	}

	dir := flag.String("dir", "", "directory for certificates, data and the kubeconfig (created)")
	kubeconfig := flag.String("kubeconfig", "", "where the administrator's kubeconfig is written once all is ready")
	withStdin := flag.Bool("exit-with-stdin", false, "stop when standard input is closed, that is, with the parent")
	flag.Parse()
	if *dir == "" || *kubeconfig == "" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "controlplane: --dir and --kubeconfig are required, and nothing else is")
		os.Exit(2)
	}
	code, err := serve(*dir, *kubeconfig, *withStdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

// say reports progress: every wait is announced, so that a slow start is not a silent one.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "controlplane: "+format+"\n", args...)
}

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

const (
	readyTimeout = 2 * time.Minute
	// stopTimeout bounds the API server's graceful end: nobody wants this data back.
	stopTimeout = 2 * time.Second
)

// serve runs etcd and kube-apiserver in this process, and the controllers in a child, until SIGTERM.
func serve(dir, kubeconfig string, withStdin bool) (int, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return 1, err
	}
	certificates := filepath.Join(dir, "certificates")
	if err := os.MkdirAll(certificates, 0o700); err != nil {
		return 1, err
	}
	authority, err := newAuthority()
	if err != nil {
		return 1, err
	}
	authorityPath := filepath.Join(certificates, "ca.crt")
	if err := os.WriteFile(authorityPath, authority.pem, 0o600); err != nil {
		return 1, err
	}
	certificate, key, err := authority.issueServer()
	if err != nil {
		return 1, err
	}
	certificatePath, keyPath, err := writePair(certificates, "kube-apiserver", certificate, key)
	if err != nil {
		return 1, err
	}
	privatePath, publicPath, err := writeServiceAccountKeys(certificates)
	if err != nil {
		return 1, err
	}

	etcd, endpoint, err := startEtcd(filepath.Join(dir, "etcd"))
	if err != nil {
		return 1, err
	}
	defer etcd.Close()

	port, err := freePort()
	if err != nil {
		return 1, err
	}
	server := fmt.Sprintf("https://127.0.0.1:%d", port)
	stopSignals(withStdin)
	go func() {
		if err := finishStart(server, dir, kubeconfig, authorityPath, authority); err != nil {
			say("%v", err)
			os.Exit(1)
		}
	}()

	command := apiserver.NewAPIServerCommand()
	command.SetArgs([]string{
		"--etcd-servers=" + endpoint,
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(port),
		"--cert-dir=" + certificates,
		"--tls-cert-file=" + certificatePath,
		"--tls-private-key-file=" + keyPath,
		"--client-ca-file=" + authorityPath,
		"--authorization-mode=RBAC",
		"--anonymous-auth=false",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + publicPath,
		"--service-account-signing-key-file=" + privatePath,
		"--service-cluster-ip-range=10.0.0.0/24",
		"--endpoint-reconciler-type=none",
		"--v=0",
	})
	return cli.Run(command), nil
}

func startEtcd(dir string) (*embed.Etcd, string, error) {
	config := embed.NewConfig()
	config.Dir = dir
	config.LogLevel = "error"
	config.UnsafeNoFsync = true
	any := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{any}, []url.URL{any}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{any}, []url.URL{any}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.QuotaBackendBytes = 4 << 30
	config.AutoCompactionMode, config.AutoCompactionRetention = "periodic", "10m"
	say("waiting for etcd")
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, "", fmt.Errorf("start etcd: %w", err)
	}
	select {
	case <-etcd.Server.ReadyNotify():
	case err := <-etcd.Err():
		return nil, "", fmt.Errorf("etcd: %w", err)
	case <-time.After(readyTimeout):
		return nil, "", fmt.Errorf("etcd was not ready within %v", readyTimeout)
	}
	return etcd, "http://" + etcd.Clients[0].Addr().String(), nil
}

// finishStart waits for the API server, starts the controllers, and only then publishes the kubeconfig: the file
// is the sign that all is ready.
func finishStart(server, dir, kubeconfig, authorityPath string, authority *authority) error {
	temporary := filepath.Join(dir, "admin.kubeconfig")
	if err := authority.writeKubeconfig(temporary, server, "autobuild-admin", "system:masters"); err != nil {
		return err
	}
	certificate, key, err := authority.issue(clientTemplate("autobuild-ready-check", "system:masters"))
	if err != nil {
		return err
	}
	say("waiting for kube-apiserver at %s", server)
	if err := waitReady(server, authority, certificate, key); err != nil {
		return err
	}
	config := filepath.Join(dir, "controllers.kubeconfig")
	if err := authority.writeKubeconfig(config, server, "system:kube-controller-manager"); err != nil {
		return err
	}
	if err := startControllers(config, authorityPath); err != nil {
		return err
	}
	if err := os.Rename(temporary, kubeconfig); err != nil {
		return err
	}
	say("ready at %s", server)
	return nil
}

func waitReady(server string, authority *authority, certificate, key []byte) error {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.certificate)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
	}}
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	last := "no answer yet"
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/readyz", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		switch {
		case err != nil:
			last = err.Error()
		default:
			body, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				client.CloseIdleConnections()
				return nil
			}
			last = fmt.Sprintf("%s: %s", response.Status, body)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kube-apiserver was not ready within %v: %s", readyTimeout, last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// startControllers starts this program again as kube-controller-manager. It ends with this process, and this
// process ends with it: half a control plane only makes for puzzling tests.
func startControllers(kubeconfig, authorityPath string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	command := exec.Command(self, controllersRole,
		"--kubeconfig="+kubeconfig,
		"--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig,
		"--root-ca-file="+authorityPath,
		"--use-service-account-credentials=true",
		"--controllers=garbage-collector-controller,namespace-controller,serviceaccount-controller,"+
			"clusterrole-aggregation-controller,root-ca-certificate-publisher-controller",
		"--leader-elect=false",
		"--secure-port=0",
		"--v=0",
	)
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	started := make(chan error, 1)
	go func() {
		// The kernel sends the signal when the *thread* that started the child ends: this one never does.
		runtime.LockOSThread()
		command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		started <- command.Start()
		select {}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start the controllers: %w", err)
	}
	go func() {
		err := command.Wait()
		say("the controllers ended: %v", err)
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}()
	return nil
}

// stopSignals ends the process some time after SIGTERM even if a watch does not let go, and turns the end of
// standard input into a SIGTERM.
func stopSignals(withStdin bool) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-signals
		time.Sleep(stopTimeout)
		os.Exit(0)
	}()
	if !withStdin {
		return
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}()
}

// freePort finds a port below the range from which the kernel gives ports to outgoing connections: between this
// check and the server's own bind nobody is handed it by chance.
func freePort() (int, error) {
	for range 200 {
		port := 20000 + rand.IntN(12000)
		listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		return port, listener.Close()
	}
	return 0, fmt.Errorf("no free port between 20000 and 32000 on 127.0.0.1")
}

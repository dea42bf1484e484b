package clients

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	pusher "github.com/pusher/pusher-http-go/v5"
)

const (
	appID    = "1"
	appKey   = "app-key"
	secret   = "app-secret"
	deadline = 10 * time.Second
)

var listening = regexp.MustCompile(`listening on http://(\S+:\d+)`)

// A broker process with its own configuration and a port of its own.
type broker struct {
	test    *testing.T
	address string // host:port
	config  string
	process *exec.Cmd
	log     *bytes.Buffer
}

// app is the TOML of one app; settings are lines such as `client_events = true`.
func app(id, key, secret string, settings ...string) string {
	return fmt.Sprintf("[[apps]]\nid = %q\nkeys = [{ key = %q, secret = %q }]\n%s\n",
		id, key, secret, strings.Join(settings, "\n"))
}

// startBroker runs a broker for the length of the test; its end must be graceful.
// Without apps it has the one of the constants above, client events included.
func startBroker(t *testing.T, apps ...string) *broker {
	t.Helper()
	if !filepath.IsAbs(os.Getenv("FANFARE_BIN")) {
		t.Fatal("FANFARE_BIN must be the absolute path of the fanfare binary")
	}
	if len(apps) == 0 {
		apps = []string{app(appID, appKey, secret, "client_events = true")}
	}
	b := &broker{test: t, config: filepath.Join(t.TempDir(), "fanfare.toml")}
	config := "[server]\nbind = \"127.0.0.1:0\"\n[metrics]\nbind = \"\"\n" + strings.Join(apps, "\n")
	if err := os.WriteFile(b.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	t.Cleanup(b.stop)
	return b
}

// start runs the process; a second start takes the port of the first.
func (b *broker) start() {
	b.test.Helper()
	arguments := []string{"serve", "--config", b.config}
	if b.address != "" {
		arguments = append(arguments, "--bind", b.address)
	}
	b.log = &bytes.Buffer{}
	b.process = exec.Command(os.Getenv("FANFARE_BIN"), arguments...)
	b.process.Stderr = b.log
	// Only the file configures it, whatever else is set on this machine.
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "FANFARE_") {
			b.process.Env = append(b.process.Env, variable)
		}
	}
	stdout, err := b.process.StdoutPipe()
	if err != nil {
		b.test.Fatal(err)
	}
	if err := b.process.Start(); err != nil {
		b.test.Fatal(err)
	}
	addresses := make(chan string, 1)
	go func() {
		defer close(addresses)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if found := listening.FindStringSubmatch(lines.Text()); found != nil {
				addresses <- found[1]
			}
		}
	}()
	select {
	case address, came := <-addresses:
		if came {
			b.address = address
			return
		}
	case <-time.After(deadline):
	}
	_ = b.process.Process.Kill()
	_ = b.process.Wait()
	b.test.Fatalf("the broker did not come up:\n%s", b.log)
}

// stop ends the process as an operator would and insists on exit code 0.
func (b *broker) stop() {
	b.test.Helper()
	if b.process != nil {
		b.terminate()
		b.ends()
	}
}

func (b *broker) terminate() {
	b.test.Helper()
	if err := b.process.Process.Signal(syscall.SIGTERM); err != nil {
		b.test.Errorf("the broker was gone before its end: %v", err)
	}
}

// ends waits for the process, which must be on its way out.
func (b *broker) ends() {
	b.test.Helper()
	process := b.process
	b.process = nil
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			b.test.Errorf("the broker did not end gracefully: %v\n%s", err, b.log)
		}
	case <-time.After(deadline):
		_ = process.Process.Kill()
		<-ended
		b.test.Errorf("the broker ignored SIGTERM\n%s", b.log)
	}
}

func (b *broker) restart() {
	b.test.Helper()
	b.stop()
	b.start()
}

// sdk is the official client for the app of the constants above.
func (b *broker) sdk() *pusher.Client {
	return &pusher.Client{AppID: appID, Key: appKey, Secret: secret, Host: b.address}
}

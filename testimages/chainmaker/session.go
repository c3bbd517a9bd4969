package chainmaker

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// A session is one running virsh that takes command after command: libvirt's
// embedded driver lives inside the process that opened it.
//
// virsh echoes what it reads, so answers are found between marks that are typed
// in two quoted halves, which its parser joins: only the answer has them whole.
type session struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	stdout <-chan []byte
	stderr <-chan []byte
	n      int
}

// startSession runs virsh on the libvirt of that address. Its two readers end
// when virsh closes its outputs.
func startSession(uri, logFile string) (*session, error) {
	cmd := exec.Command("virsh", "-q", "-c", uri)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "LIBVIRT_LOG_OUTPUTS=3:file:"+logFile)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	errs, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &session{cmd: cmd, in: in, stdout: chunks(out), stderr: chunks(errs)}, nil
}

// chunks hands on what arrives until the end of the stream. It has room for
// more than one command prints, so that an abandoned answer blocks nothing.
func chunks(r io.Reader) <-chan []byte {
	ch := make(chan []byte, 1024)
	go func() {
		defer close(ch)
		for {
			buf := make([]byte, 32<<10)
			n, err := r.Read(buf)
			ch <- buf[:n]
			if err != nil {
				return
			}
		}
	}()
	return ch
}

// run has virsh do one command and returns what it printed. Virsh goes on after a
// failure, so whatever it says on standard error is the failure.
func (s *session) run(ctx context.Context, args ...string) (string, error) {
	line, err := quote(args)
	if err != nil {
		return "", err
	}
	s.n++
	mark := func(kind string) string { return fmt.Sprintf("'<%s''%d>'", kind, s.n) }
	_, err = fmt.Fprintf(s.in, "echo %[1]s; echo --err %[1]s; %[2]s; echo %[3]s; echo --err %[3]s\n", mark("begin"), line, mark("end"))
	if err != nil {
		return "", fmt.Errorf("virsh %s: %w", args[0], err)
	}
	return s.answer(ctx, args[0])
}

// answer reads both streams up to the end mark and cuts the answer out.
func (s *session) answer(ctx context.Context, verb string) (string, error) {
	end := fmt.Sprintf("<end%d>", s.n)
	out, err := until(ctx, s.stdout, end)
	if err != nil {
		return "", fmt.Errorf("virsh %s: standard output: %w", verb, err)
	}
	said, err := until(ctx, s.stderr, end)
	if err != nil {
		return "", fmt.Errorf("virsh %s: standard error: %w", verb, err)
	}
	begin := fmt.Sprintf("<begin%d>", s.n)
	if said = between(said, begin, "error: "+end); said != "" {
		return "", fmt.Errorf("virsh %s: %s", verb, said)
	}
	return between(out, begin, end), nil
}

// between drops the marks, and what an abandoned command left before them.
func between(text, begin, end string) string {
	_, text, _ = strings.Cut(text, begin)
	text, _, _ = strings.Cut(text, end)
	return strings.TrimSpace(text)
}

// until gathers chunks up to and with the mark.
func until(ctx context.Context, ch <-chan []byte, mark string) (string, error) {
	var got strings.Builder
	for !strings.Contains(got.String(), mark) {
		select {
		case b, ok := <-ch:
			if !ok {
				return "", fmt.Errorf("virsh ended after %q", got.String())
			}
			got.Write(b)
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	return got.String(), nil
}

// quote writes one command as virsh's own parser wants it.
func quote(args []string) (string, error) {
	words := make([]string, len(args))
	for i, a := range args {
		if strings.ContainsAny(a, "'\n\r\t") {
			return "", fmt.Errorf("virsh argument holds a quote or control character: %q", a)
		}
		words[i] = "'" + a + "'"
	}
	return strings.Join(words, " "), nil
}

// close ends virsh, which leaves at the end of its input.
func (s *session) close() error {
	s.in.Close()
	for range s.stdout {
	}
	for range s.stderr {
	}
	return s.cmd.Wait()
}

package chainmaker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// poll is how often a job is asked whether it has ended, limit how long it may take.
const (
	poll  = 20 * time.Millisecond
	limit = 2 * time.Minute
)

// object is a JSON object of the monitor's protocol.
type object map[string]any

// qmp has QEMU do one command of its own; out may be nil.
func (m *maker) qmp(ctx context.Context, command string, args object, out any) error {
	request := object{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	text, err := json.Marshal(request)
	if err != nil {
		return err
	}
	answer, err := m.virsh(ctx, "qemu-monitor-command", m.chain.Domain, string(text))
	if err != nil {
		return err
	}
	return decodeAnswer(command, answer, out)
}

func decodeAnswer(command, answer string, out any) error {
	var reply struct {
		Return json.RawMessage
		Error  *struct{ Class, Desc string }
	}
	if err := json.Unmarshal([]byte(answer), &reply); err != nil {
		return fmt.Errorf("qmp %s: answer %q: %w", command, answer, err)
	}
	if reply.Error != nil {
		return fmt.Errorf("qmp %s: %s: %s", command, reply.Error.Class, reply.Error.Desc)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(reply.Return, out)
}

// qemuIO does one operation on a disk in the guest's place. QEMU reports a
// failed one only in its log, so callers look at the bitmaps afterwards.
func (m *maker) qemuIO(ctx context.Context, d *liveDisk, operation string) error {
	hmp := fmt.Sprintf("qemu-io -d %s \"%s\"", d.device, operation)
	_, err := m.virsh(ctx, "qemu-monitor-command", m.chain.Domain, "--hmp", hmp)
	return err
}

// A blockDevice is what query-block says of a disk.
type blockDevice struct {
	Qdev     string
	Inserted struct {
		NodeName string        `json:"node-name"`
		Bitmaps  []dirtyBitmap `json:"dirty-bitmaps"`
	}
}

type dirtyBitmap struct {
	Name  string
	Count int64 // dirty bytes
}

func (m *maker) block(ctx context.Context, d *liveDisk) (*blockDevice, error) {
	var devices []blockDevice
	if err := m.qmp(ctx, "query-block", nil, &devices); err != nil {
		return nil, err
	}
	for i := range devices {
		if devices[i].Qdev == d.device {
			return &devices[i], nil
		}
	}
	return nil, fmt.Errorf("qmp query-block: no device %s", d.device)
}

func (m *maker) findNodes(ctx context.Context) error {
	for _, d := range m.disks {
		b, err := m.block(ctx, d)
		if err != nil {
			return err
		}
		d.node = b.Inserted.NodeName
	}
	return nil
}

var errTooLong = errors.New("did not end in time")

// await asks again and again until done says so.
func await(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errTooLong)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		ok, err := done()
		if err != nil || ok {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
	}
}

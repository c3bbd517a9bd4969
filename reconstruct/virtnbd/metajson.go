package virtnbd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// metaKeys are the keys of the meta frame, as plainKey makes them.
var metaKeys = map[string]func(m *Meta, v json.RawMessage) error{
	"virtualsize":       func(m *Meta, v json.RawMessage) error { return asSize(&m.VirtualSize, v) },
	"datasize":          func(m *Meta, v json.RawMessage) error { return asSize(&m.DataSize, v) },
	"date":              func(m *Meta, v json.RawMessage) error { return asText(&m.Date, v) },
	"diskname":          func(m *Meta, v json.RawMessage) error { return asText(&m.DiskName, v) },
	"diskformat":        func(m *Meta, v json.RawMessage) error { return asText(&m.DiskFormat, v) },
	"checkpointname":    func(m *Meta, v json.RawMessage) error { return asText(&m.CheckpointName, v) },
	"parentcheckpoint":  func(m *Meta, v json.RawMessage) error { return asText(&m.ParentCheckpoint, v) },
	"compressionmethod": func(m *Meta, v json.RawMessage) error { return asText(&m.CompressionMethod, v) },
	"compressed":        asCompressed,
	"incremental":       func(m *Meta, v json.RawMessage) error { return asFlag(&m.Incremental, v) },
	"streamversion":     asVersion,
}

// plainKey is a key without what differs between releases: virtual-size,
// stream_version and streamVersion are in use.
func plainKey(key string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(key))
}

// parseMeta reads the JSON of a meta frame, which stands at host.
func parseMeta(text []byte, host int64) (Meta, error) {
	m := Meta{DataSize: -1, StreamVersion: 1, Unknown: map[string]json.RawMessage{}}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil || all == nil {
		return Meta{}, formatError("meta frame", "JSON", host, shown(text), jsonRule(err))
	}
	said := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		plain := plainKey(key)
		set, known := metaKeys[plain]
		if !known {
			m.Unknown[key] = bytes.Clone(all[key])
			continue
		}
		err := set(&m, all[key])
		if said[plain] {
			err = errors.New("the key stands there twice, in two spellings")
		}
		if err != nil {
			return Meta{}, formatError("meta frame", key, host, shown(all[key]), err.Error())
		}
		said[plain] = true
	}
	if !said["virtualsize"] {
		return Meta{}, formatError("meta frame", "virtualSize", host, "", "must be there")
	}
	return m, m.check(host)
}

func jsonRule(err error) string {
	if err == nil {
		return "must be an object"
	}
	return fmt.Sprintf("must be a JSON object: %v", err)
}

// scalar is the text of a JSON string, number, true or false; null is empty.
func scalar(v json.RawMessage) (text string, quoted bool, err error) {
	switch {
	case len(v) > 0 && v[0] == '"':
		err = json.Unmarshal(v, &text)
		return text, true, err
	case len(v) > 0 && (v[0] == '{' || v[0] == '['):
		return "", false, errors.New("must not be an object or a list")
	case string(v) == "null":
		return "", false, nil
	}
	return string(v), false, nil
}

// asText takes a text; false and null mean none.
func asText(p *string, v json.RawMessage) error {
	text, quoted, err := scalar(v)
	if err == nil && !quoted && text == "true" {
		err = errors.New("must be a text")
	}
	if !quoted && text == "false" {
		text = ""
	}
	*p = text
	return err
}

// asSize takes a number that is not negative, or a text of one.
func asSize(p *int64, v json.RawMessage) error {
	text, _, err := scalar(v)
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n < 0 {
		return errors.New("must be a whole number from 0 to 2^63-1")
	}
	*p = n
	return nil
}

func asVersion(m *Meta, v json.RawMessage) error {
	var n int64
	if err := asSize(&n, v); err != nil || n > 1<<30 {
		return errors.New("must be a small whole number")
	}
	m.StreamVersion = int(n)
	return nil
}

// asFlag takes true, false, null for false, a number, or a text of one of these.
func asFlag(p *bool, v json.RawMessage) error {
	text, _, err := scalar(v)
	if err != nil {
		return err
	}
	text = strings.ToLower(strings.TrimSpace(text))
	switch text {
	case "true":
		*p = true
	case "false", "", "none":
		*p = false
	default:
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return errors.New("must be true or false")
		}
		*p = n != 0
	}
	return nil
}

// asCompressed takes false for plain, true, or the level. Level 0 is compressed:
// the tool asks only whether it was told one.
func asCompressed(m *Meta, v json.RawMessage) error {
	if err := asFlag(&m.Compressed, v); err != nil {
		return err
	}
	text, _, _ := scalar(v)
	if level, err := strconv.ParseInt(strings.TrimSpace(text), 10, 32); err == nil {
		m.Compressed, m.CompressionLevel = true, int(level)
	}
	return nil
}

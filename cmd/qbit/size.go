package main

import (
	"fmt"
	"math"
	"math/big"
	"strings"

	"github.com/dustin/go-humanize"
)

// parseSize reads a size as QEMU does: a number, which may have a fraction, and
// one of the suffixes b, k, M, G, T, P, E, which are powers of 1024 in either case.
func parseSize(s string) (int64, error) {
	number, unit, err := splitSize(s)
	if err != nil {
		return 0, err
	}
	value, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, sizeError(s, "it is not a number")
	}
	value.Mul(value, new(big.Rat).SetInt64(unit))
	if !value.IsInt() && unit == 1 {
		return 0, sizeError(s, "a fraction of a byte")
	}
	whole := new(big.Int).Quo(value.Num(), value.Denom())
	if !whole.IsInt64() {
		return 0, sizeError(s, fmt.Sprintf("it is above %d", int64(math.MaxInt64)))
	}
	return whole.Int64(), nil
}

// splitSize takes the suffix off.
func splitSize(s string) (number string, unit int64, err error) {
	number, unit = s, 1
	if len(s) > 0 {
		if i := strings.IndexByte("bkmgtpe", s[len(s)-1]|0x20); i >= 0 {
			number, unit = s[:len(s)-1], int64(1)<<(10*i)
		}
	}
	if number == "" || strings.Trim(number, "0123456789.") != "" || number[0] == '.' {
		return "", 0, sizeError(s, "it is not a number")
	}
	return number, unit, nil
}

func sizeError(s, why string) error {
	return fmt.Errorf("size %q: %s; sizes are like 65536, 64k, 1.5G (powers of 1024)", s, why)
}

// sizeValue is a flag that takes a size.
type sizeValue int64

func (v *sizeValue) String() string { return fmt.Sprint(int64(*v)) }
func (v *sizeValue) Type() string   { return "size" }

func (v *sizeValue) Set(s string) error {
	n, err := parseSize(s)
	*v = sizeValue(n)
	return err
}

// formatSize prints a size for people: "1.5 GiB".
func formatSize(n int64) string {
	if n < 0 {
		return fmt.Sprint(n)
	}
	return humanize.IBytes(uint64(n))
}

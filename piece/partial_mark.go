package piece

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
)

// mark is a small file that says up to which offset a Partial was synced. It is
// written after the sync and not synced itself, so that it can be late, which
// costs time at the next open, but never early. It names the file that it
// speaks of, so that it does not vouch for another one at the same path.
//
// Its 32 bytes: "tgmark1\n", offset, identity of the file, CRC-32 of these and
// four zero bytes; little endian.
type mark struct {
	path string
	info fs.FileInfo // of the file it speaks of
}

const (
	markMagic = "tgmark1\n"
	markBytes = 32
)

// get returns the offset, 0 if there is no mark that can be believed.
func (m *mark) get() int64 {
	b, err := os.ReadFile(m.path)
	id := fileIdentity(m.info)
	if err != nil || id == 0 || len(b) != markBytes || string(b) != string(m.encode(binary.LittleEndian.Uint64(b[8:]))) {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(b[8:]))
}

func (m *mark) encode(offset uint64) []byte {
	b := append(make([]byte, 0, markBytes), markMagic...)
	b = binary.LittleEndian.AppendUint64(b, offset)
	b = binary.LittleEndian.AppendUint64(b, fileIdentity(m.info))
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return append(b, 0, 0, 0, 0)
}

// set records that the file is durable up to offset. An error is dropped: the
// next open hashes more than it had to.
func (m *mark) set(offset int64) {
	f, err := os.OpenFile(m.path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return
	}
	_, _ = f.WriteAt(m.encode(uint64(offset)), 0)
	_ = f.Close()
}

// remove forgets the mark, durably.
func (m *mark) remove() error {
	err := os.Remove(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove mark: %w", err)
	}
	return nil
}

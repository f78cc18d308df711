package piece

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/spaolacci/murmur3"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// maxDirectoryBlock is the size of block above which a directory is spread
	// over several, as IPIP-499 has it.
	maxDirectoryBlock = 256 << 10
	hamtFanout        = 256
	hamtMurmur3       = 0x22 // multicodec murmur3-x64-64
)

// UnixFS types. Source: https://specs.ipfs.tech/unixfs/
const (
	unixfsTypeDirectory = 1
	unixfsTypeFile      = 2
	unixfsTypeSymlink   = 4
	unixfsTypeHAMT      = 5
)

// pbLink is a link in a DAG-PB node, and what its parent must know of it.
type pbLink struct {
	cid  cid.Cid
	name string
	tree uint64 // bytes of all blocks below it: Tsize
	file uint64 // bytes of file below it
}

// putNode writes a DAG-PB node and returns a link to it without a name. The
// links must be in order of their names.
func (p *packer) putNode(links []pbLink, data []byte) (pbLink, error) {
	return p.putEncoded(links, encodeNode(links, data))
}

func (p *packer) putEncoded(links []pbLink, block []byte) (pbLink, error) {
	c, err := nodeBuilder.Sum(block)
	if err != nil {
		return pbLink{}, err
	}
	tree := uint64(len(block))
	for _, l := range links {
		tree += l.tree
	}
	return pbLink{cid: c, tree: tree}, p.car.put(c, block)
}

// encodeNode encodes a DAG-PB node canonically: links before data.
// Source: https://ipld.io/specs/codecs/dag-pb/spec/
func encodeNode(links []pbLink, data []byte) []byte {
	var block, link []byte
	for _, l := range links {
		link = protowire.AppendTag(link[:0], 1, protowire.BytesType)
		link = protowire.AppendBytes(link, l.cid.Bytes())
		link = protowire.AppendTag(link, 2, protowire.BytesType)
		link = protowire.AppendString(link, l.name)
		link = protowire.AppendTag(link, 3, protowire.VarintType)
		link = protowire.AppendVarint(link, l.tree)
		block = protowire.AppendTag(block, 2, protowire.BytesType)
		block = protowire.AppendBytes(block, link)
	}
	block = protowire.AppendTag(block, 1, protowire.BytesType)
	return protowire.AppendBytes(block, data)
}

// putFileNode writes a node of a file above these links.
func (p *packer) putFileNode(links []pbLink) (pbLink, error) {
	var size uint64
	for _, l := range links {
		size += l.file
	}
	data := unixfsType(unixfsTypeFile)
	data = protowire.AppendTag(data, 3, protowire.VarintType)
	data = protowire.AppendVarint(data, size)
	for _, l := range links {
		data = protowire.AppendTag(data, 4, protowire.VarintType)
		data = protowire.AppendVarint(data, l.file)
	}
	node, err := p.putNode(links, data)
	node.file = size
	return node, err
}

func unixfsType(t uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), t)
}

func unixfsSymlink(target string) []byte {
	data := protowire.AppendTag(unixfsType(unixfsTypeSymlink), 2, protowire.BytesType)
	return protowire.AppendString(data, target)
}

// putDirectory writes a directory with these links, which are in order of their
// names: one block if it is small enough, otherwise a HAMT.
func (p *packer) putDirectory(links []pbLink) (pbLink, error) {
	block := encodeNode(links, unixfsType(unixfsTypeDirectory))
	if len(block) <= maxDirectoryBlock {
		return p.putEncoded(links, block)
	}
	hashed := make([]hashedLink, len(links))
	for i, l := range links {
		binary.BigEndian.PutUint64(hashed[i].hash[:], murmur3.Sum64([]byte(l.name)))
		hashed[i].link = l
	}
	slices.SortFunc(hashed, func(a, b hashedLink) int { return bytes.Compare(a.hash[:], b.hash[:]) })
	return p.putShard(hashed, 0)
}

// hashedLink is an entry of a HAMT: each byte of the hash of its name chooses
// the slot on one level.
type hashedLink struct {
	hash [8]byte
	link pbLink
}

// putShard writes the shard that holds these entries, in order of their hashes,
// which agree in their first depth bytes.
func (p *packer) putShard(entries []hashedLink, depth int) (pbLink, error) {
	if depth == len(entries[0].hash) {
		return pbLink{}, errors.New("two names in a directory have the same hash; rename one: " +
			fmt.Sprintf("%q, %q", entries[0].link.name, entries[1].link.name))
	}
	var slots [hamtFanout / 8]byte
	var links []pbLink
	for len(entries) > 0 {
		slot := entries[0].hash[depth]
		n := 1
		for n < len(entries) && entries[n].hash[depth] == slot {
			n++
		}
		l := entries[0].link
		if n > 1 {
			var err error
			if l, err = p.putShard(entries[:n], depth+1); err != nil {
				return pbLink{}, err
			}
		}
		l.name = fmt.Sprintf("%02X%s", slot, l.name)
		links = append(links, l)
		slots[len(slots)-1-int(slot/8)] |= 1 << (slot % 8) // the last byte holds slots 0 to 7
		entries = entries[n:]
	}
	data := protowire.AppendTag(unixfsType(unixfsTypeHAMT), 2, protowire.BytesType)
	data = protowire.AppendBytes(data, bytes.TrimLeft(slots[:], "\x00"))
	data = protowire.AppendTag(data, 5, protowire.VarintType)
	data = protowire.AppendVarint(data, hamtMurmur3)
	data = protowire.AppendTag(data, 6, protowire.VarintType)
	data = protowire.AppendVarint(data, hamtFanout)
	return p.putNode(links, data)
}

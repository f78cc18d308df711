// Package piece is the goods: what a provider serves and how a client keeps
// what it received.
//
// The one idea: a piece is a CAR file that is never changed, and everything
// that must be known about it without reading it again (which blocks it holds,
// where they lie, how long they are, what the file is called by) is in one
// index file beside it, made in one pass when the piece is first seen.
//
// # Pieces
//
// A piece is a CARv1 or CARv2 file. Its ID is the CID of its CARv1 payload:
// version 1, codec "car" (0x0202), SHA-256 of the payload, which is the whole
// file for a CARv1 and the inner data for a CARv2, without zero padding at the
// end. It costs nothing beyond the pass that makes the index, does not change
// when the file is moved or wrapped, and anyone can compute it with sha256sum.
// The Filecoin piece CID (CommP) takes several times as long, so it is
// computed only when Config.PieceCID asks for it; Find then accepts both.
//
// # Index
//
// An index holds one record of 44 bytes per block, in buckets of eight on average
// with a checksum each. Which one a block is in follows from its hash and a seed of
// the index, and where that lies from a directory of a byte for seven blocks, which
// alone is read when a store is opened and held in memory: a block that a piece holds
// costs one read of some 400 bytes. Of several pieces a filter of ten bits per block is
// brought into memory beside serving, with which a block that a piece does not hold is
// almost always refused without touching the disk. Blocks are found by
// multihash, so that a CID finds its block whatever version or codec it names.
// An index is bound to the size and modification time of its file and made
// again when they differ or when it is damaged. One of an earlier version is written
// anew from itself.
//
// # Sealed pieces
//
// A piece that is too costly to keep at hand can be kept in another form,
// compressed, encrypted, or as a stub of something on tape. The operator
//
//  1. serves NAME.car once (or indexes it), so that its index exists;
//  2. makes NAME.car.sealed with a tool of choice, for example zstd;
//  3. deletes NAME.car and starts again.
//
// From then on the piece is offered as sealed: Find, Size and Pieces work from
// the index alone, and Unseal brings the bytes back with the configured
// Unsealer, checks that they are the piece that the index promised, and keeps
// them under IndexDir/unsealed until Reseal or until the file is deleted while
// no store is open. An operator who moves sealed pieces to another machine
// takes the index with them as NAME.car.idx beside NAME.car.sealed;
// Store.IndexPath says where it lies.
package piece

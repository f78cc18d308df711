//go:build unix

package integration

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"

	datatransfer "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/linking"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	market "github.com/tollgraph/tollgraph/retrievalmarket"
)

// fuse kills its process at the n-th crash point that it passes. The points are
// just before and just after everything that another process, or a later one,
// can see: a commit, a message, a raised limit, a block.
type fuse struct {
	at     int64
	passed atomic.Int64
}

// envCrashAt is where a child process is told which point is its last.
const envCrashAt = "TOLLGRAPH_TEST_CRASH_AT"

func fuseFromEnv() *fuse {
	at, _ := strconv.ParseInt(os.Getenv(envCrashAt), 10, 64) // 0: never
	return &fuse{at: at}
}

// point is a crash point.
func (f *fuse) point() {
	if f.passed.Add(1) == f.at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it is not instantaneous
	}
}

// around runs act between two crash points.
func around[T any](f *fuse, act func() (T, error)) (T, error) {
	f.point()
	v, err := act()
	f.point()
	return v, err
}

// fusedTransfers has crash points around everything that is sent.
type fusedTransfers struct {
	market.Transfers
	fuse *fuse
}

func (t fusedTransfers) OpenPullDataChannel(ctx context.Context, to peer.ID, v datatransfer.TypedVoucher, root cid.Cid,
	sel datamodel.Node, opts ...datatransfer.TransferOption,
) (datatransfer.ChannelID, error) {
	return around(t.fuse, func() (datatransfer.ChannelID, error) {
		return t.Transfers.OpenPullDataChannel(ctx, to, v, root, sel, opts...)
	})
}

func (t fusedTransfers) SendVoucher(ctx context.Context, chid datatransfer.ChannelID, v datatransfer.TypedVoucher) error {
	return t.fuse.do(func() error { return t.Transfers.SendVoucher(ctx, chid, v) })
}

func (t fusedTransfers) UpdateValidationStatus(ctx context.Context, chid datatransfer.ChannelID, r datatransfer.ValidationResult) error {
	return t.fuse.do(func() error { return t.Transfers.UpdateValidationStatus(ctx, chid, r) })
}

func (t fusedTransfers) CloseDataTransferChannel(ctx context.Context, chid datatransfer.ChannelID) error {
	return t.fuse.do(func() error { return t.Transfers.CloseDataTransferChannel(ctx, chid) })
}

func (f *fuse) do(act func() error) error {
	_, err := around(f, func() (struct{}, error) { return struct{}{}, act() })
	return err
}

// fusedHost has crash points around every write to a stream of the market's.
type fusedHost struct {
	host.Host
	fuse *fuse
}

func (h fusedHost) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := h.Host.NewStream(ctx, p, ids...)
	if err != nil {
		return nil, err
	}
	return fusedStream{s, h.fuse}, nil
}

func (h fusedHost) SetStreamHandler(id protocol.ID, serve network.StreamHandler) {
	h.Host.SetStreamHandler(id, func(s network.Stream) { serve(fusedStream{s, h.fuse}) })
}

type fusedStream struct {
	network.Stream
	fuse *fuse
}

func (s fusedStream) Write(b []byte) (int, error) {
	return around(s.fuse, func() (int, error) { return s.Stream.Write(b) })
}

// fusedStores has crash points around every block that is kept, and every sync.
type fusedStores struct {
	stores
	fuse *fuse
}

func (s fusedStores) Open(ctx context.Context, root cid.Cid) (market.Store, error) {
	store, err := s.stores.Open(ctx, root)
	if err != nil {
		return nil, err
	}
	return fusedStore{store, s.fuse}, nil
}

type fusedStore struct {
	market.Store
	fuse *fuse
}

func (s fusedStore) Sync() (uint64, error) { return around(s.fuse, s.Store.Sync) }

func (s fusedStore) LinkSystem() ipld.LinkSystem {
	ls := s.Store.LinkSystem()
	open := ls.StorageWriteOpener
	ls.StorageWriteOpener = func(lc linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		w, commit, err := open(lc)
		if err != nil {
			return nil, nil, err
		}
		return w, func(l datamodel.Link) error { return s.fuse.do(func() error { return commit(l) }) }, nil
	}
	return ls
}

// fusedGoods has a crash point before every block that is read to be sent.
type fusedGoods struct {
	goods
	fuse *fuse
}

func (g fusedGoods) LinkSystem(id cid.Cid) ipld.LinkSystem {
	ls := g.goods.LinkSystem(id)
	open := ls.StorageReadOpener
	ls.StorageReadOpener = func(lc linking.LinkContext, l datamodel.Link) (io.Reader, error) {
		g.fuse.point()
		return open(lc, l)
	}
	return ls
}

// fusedDB is another handle on a database of market.OpenDatabase, with crash
// points around every commit.
func fusedDB(path string, f *fuse) (*sql.DB, error) {
	plain, err := market.OpenDatabase(path)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	pragmas := "?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(ON)"
	db := sql.OpenDB(fusedConnector{plain.Driver(), "file:" + path + pragmas, f})
	db.SetMaxOpenConns(4)
	return db, db.Ping()
}

type fusedConnector struct {
	base driver.Driver
	dsn  string
	fuse *fuse
}

func (c fusedConnector) Driver() driver.Driver { return c.base }

func (c fusedConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.base.Open(c.dsn)
	if err != nil {
		return nil, err
	}
	full, ok := conn.(sqlConn)
	if !ok {
		return nil, fmt.Errorf("a %T cannot be wrapped", conn)
	}
	return &fusedConn{sqlConn: full, fuse: c.fuse}, nil
}

// sqlConn is what database/sql uses of a connection of the driver.
type sqlConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
}

type fusedConn struct {
	sqlConn
	fuse *fuse
	inTx bool
}

func (c *fusedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if c.inTx {
		return c.sqlConn.ExecContext(ctx, query, args)
	}
	return around(c.fuse, func() (driver.Result, error) { return c.sqlConn.ExecContext(ctx, query, args) })
}

func (c *fusedConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := c.sqlConn.BeginTx(ctx, opts)
	c.inTx = err == nil
	return fusedTx{tx, c}, err
}

type fusedTx struct {
	driver.Tx
	conn *fusedConn
}

func (t fusedTx) Commit() error {
	t.conn.inTx = false
	return t.conn.fuse.do(t.Tx.Commit)
}

func (t fusedTx) Rollback() error {
	t.conn.inTx = false
	return t.Tx.Rollback()
}

// Package payment is where money is: the client's Wallet, which is the only
// place that signs, and the provider's Till, which is the only place that
// credits. The rail here is on account: real signed vouchers, no chain.
//
//	Wallet ── CreatePaymentVoucher ──▶ voucher ──▶ SavePaymentVoucher ── Till
//	budget, policy, nonce: on disk                  credit line, evidence: on disk
//
// A channel is a pair of a payer and a payee; its address is computed from the
// two (ChannelAddress), so that neither side need tell the other. A lane is the
// account of one deal in a channel. Vouchers are cumulative: one says what its
// lane is worth in total, so losing, doubling, delaying or reordering them does
// no harm.
//
// A voucher on account is a promise that holds in front of anybody: it is signed
// and names payer and payee. Its payee gives goods against it up to a credit
// line, and bills the payer with a Statement, which either side can export and
// anyone can verify. Money that came by other means is recorded with Settle.
//
// What returns without an error is on disk: every decision about money is one
// transaction, synced before the call returns, and what returns an error wrote
// nothing. Decisions that wait together share one transaction, so that many
// deals do not wait for many syncs. Channels, and lanes without a voucher, are on disk
// with the next transaction of anyone that is: nothing was promised on them yet.
//
// Wallet and Till keep nothing in memory that the database has: several
// processes may use one database at once. They are safe for concurrent use. Their
// methods must not be called by someone who holds a transaction open on the
// same database: they would wait for each other.
package payment

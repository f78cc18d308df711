package voucher

import "github.com/ipld/go-ipld-prime/datamodel"

// MarshalCBORMap returns q as QueryProtocol carries it.
func (q Query) MarshalCBORMap() ([]byte, error) {
	params := writer{what: "query.QueryParams"}
	params.optLink("PieceCID", q.QueryParams.PieceCID)
	if q.QueryParams.Selector != nil {
		params.any("Selector", q.QueryParams.Selector)
	}
	if q.QueryParams.MaxPricePerByte != nil {
		params.price("MaxPricePerByte", *q.QueryParams.MaxPricePerByte)
	}
	if q.QueryParams.MinPaymentInterval != 0 {
		params.uint("MinPaymentInterval", uint64(q.QueryParams.MinPaymentInterval))
	}
	if q.QueryParams.MinPaymentIntervalIncrease != 0 {
		params.uint("MinPaymentIntervalIncrease", uint64(q.QueryParams.MinPaymentIntervalIncrease))
	}
	w := writer{what: "query"}
	w.link("PayloadCID", q.PayloadCID)
	n, err := params.asMap()
	w.sub("QueryParams", n, err)
	return marshal(w.asMap())
}

// MarshalTuple returns q as QueryProtocolV0 carries it: without any field of
// QueryParams but PieceCID.
func (q Query) MarshalTuple() ([]byte, error) {
	params := writer{what: "query.QueryParams"}
	params.optLink("PieceCID", q.QueryParams.PieceCID)
	w := writer{what: "query"}
	w.link("PayloadCID", q.PayloadCID)
	n, err := params.asTuple()
	w.sub("QueryParams", n, err)
	return marshal(w.asTuple())
}

// UnmarshalQuery reads what MarshalCBORMap writes, in any key order. Unknown keys
// are ignored. It does not look into the selector. The error wraps ErrMalformed.
func UnmarshalQuery(b []byte) (Query, error) {
	n, err := UnmarshalNode(b)
	if err != nil {
		return Query{}, err
	}
	r := readOpenMap("query", n, "PayloadCID", "QueryParams")
	q := Query{PayloadCID: r.link("PayloadCID")}
	inner := r.get("QueryParams", datamodel.Kind_Map)
	if err := r.finish(); err != nil {
		return Query{}, err
	}
	in := readOpenMap("query.QueryParams", inner, "PieceCID", "Selector", "MaxPricePerByte",
		"MinPaymentInterval", "MinPaymentIntervalIncrease")
	q.QueryParams = QueryParams{
		PieceCID:                   in.optLink("PieceCID"),
		MaxPricePerByte:            optional(in, "MaxPricePerByte", in.price),
		MinPaymentInterval:         zeroOr(optional(in, "MinPaymentInterval", in.size)),
		MinPaymentIntervalIncrease: zeroOr(optional(in, "MinPaymentIntervalIncrease", in.size)),
	}
	if in.has("Selector") {
		q.QueryParams.Selector = in.any("Selector")
	}
	if err := in.finish(); err != nil {
		return Query{}, err
	}
	return q, nil
}

// UnmarshalQueryV0 reads what MarshalTuple writes. The error wraps ErrMalformed.
func UnmarshalQueryV0(b []byte) (Query, error) {
	n, err := UnmarshalNode(b)
	if err != nil {
		return Query{}, err
	}
	r := readTuple("query", n, "PayloadCID", "QueryParams")
	q := Query{PayloadCID: r.link("PayloadCID")}
	inner := r.get("QueryParams", datamodel.Kind_List)
	if err := r.finish(); err != nil {
		return Query{}, err
	}
	in := readTuple("query.QueryParams", inner, "PieceCID")
	q.QueryParams.PieceCID = in.optLink("PieceCID")
	if err := in.finish(); err != nil {
		return Query{}, err
	}
	return q, nil
}

// responseKeys are the fields of a QueryResponse in the order of its tuple.
var responseKeys = []string{
	"Status", "PieceCIDFound", "Size", "PaymentAddress", "MinPricePerByte",
	"MaxPaymentInterval", "MaxPaymentIntervalIncrease", "Message", "UnsealPrice",
}

// write writes the fields of responseKeys.
func (q QueryResponse) write() *writer {
	w := &writer{what: "query response"}
	w.uint("Status", uint64(q.Status))
	w.uint("PieceCIDFound", uint64(q.PieceCIDFound))
	w.uint("Size", uint64(q.Size))
	w.optAddress("PaymentAddress", q.PaymentAddress)
	w.price("MinPricePerByte", q.MinPricePerByte)
	w.uint("MaxPaymentInterval", uint64(q.MaxPaymentInterval))
	w.uint("MaxPaymentIntervalIncrease", uint64(q.MaxPaymentIntervalIncrease))
	w.text("Message", q.Message)
	w.amount("UnsealPrice", q.UnsealPrice)
	return w
}

// readResponse reads the fields of responseKeys but UnsealPrice.
func readResponse(r *reader) QueryResponse {
	return QueryResponse{
		Status:                     QueryResponseStatus(r.uint("Status")),
		PieceCIDFound:              QueryItemStatus(r.uint("PieceCIDFound")),
		Size:                       r.size("Size"),
		PaymentAddress:             r.optAddress("PaymentAddress"),
		MinPricePerByte:            r.price("MinPricePerByte"),
		MaxPaymentInterval:         r.size("MaxPaymentInterval"),
		MaxPaymentIntervalIncrease: r.size("MaxPaymentIntervalIncrease"),
		Message:                    r.text("Message"),
	}
}

// MarshalCBORMap returns q as QueryProtocol carries it. An undefined
// PaymentAddress is written as no bytes, which peers of the older generation
// refuse: a provider does well to set it in every answer.
func (q QueryResponse) MarshalCBORMap() ([]byte, error) {
	w := q.write()
	if q.PayloadCIDFound != nil {
		w.uint("PayloadCIDFound", uint64(*q.PayloadCIDFound))
	}
	if q.SelectorFound != nil {
		w.uint("SelectorFound", uint64(*q.SelectorFound))
	}
	if q.ExpectedPayloadSize != nil {
		w.uint("ExpectedPayloadSize", uint64(*q.ExpectedPayloadSize))
	}
	if q.ExpectedBlocks != nil {
		w.uint("ExpectedBlocks", *q.ExpectedBlocks)
	}
	if q.CreditLine != nil {
		w.amount("CreditLine", *q.CreditLine)
	}
	return marshal(w.asMap())
}

// MarshalTuple returns q as QueryProtocolV0 carries it: without the fields
// behind UnsealPrice.
func (q QueryResponse) MarshalTuple() ([]byte, error) { return marshal(q.write().asTuple()) }

// UnmarshalQueryResponse reads what MarshalCBORMap writes, in any key order.
// Unknown keys are ignored. The error wraps ErrMalformed.
func UnmarshalQueryResponse(b []byte) (QueryResponse, error) {
	n, err := UnmarshalNode(b)
	if err != nil {
		return QueryResponse{}, err
	}
	keys := append([]string{"PayloadCIDFound", "SelectorFound", "ExpectedPayloadSize", "ExpectedBlocks",
		"CreditLine"}, responseKeys...)
	r := readOpenMap("query response", n, keys...)
	q := readResponse(r)
	q.UnsealPrice = r.amount("UnsealPrice")
	q.PayloadCIDFound = optional(r, "PayloadCIDFound", r.item)
	q.SelectorFound = optional(r, "SelectorFound", r.item)
	q.ExpectedPayloadSize = optional(r, "ExpectedPayloadSize", r.size)
	q.ExpectedBlocks = optional(r, "ExpectedBlocks", r.uint)
	q.CreditLine = optional(r, "CreditLine", r.amount)
	if err := r.finish(); err != nil {
		return QueryResponse{}, err
	}
	return q, nil
}

// UnmarshalQueryResponseV0 reads what MarshalTuple writes, and the tuple of eight
// that the first peers wrote, which had no UnsealPrice. The error wraps
// ErrMalformed.
func UnmarshalQueryResponseV0(b []byte) (QueryResponse, error) {
	n, err := UnmarshalNode(b)
	if err != nil {
		return QueryResponse{}, err
	}
	keys, first := responseKeys, n.Length() == int64(len(responseKeys)-1)
	if first {
		keys = keys[:len(keys)-1]
	}
	r := readTuple("query response", n, keys...)
	q := readResponse(r)
	if !first {
		q.UnsealPrice = r.amount("UnsealPrice")
	}
	if err := r.finish(); err != nil {
		return QueryResponse{}, err
	}
	return q, nil
}

// marshal returns the bytes of what asMap or asTuple returned.
func marshal(n datamodel.Node, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return MarshalNode(n)
}

func (r *reader) size(key string) Bytes { return Bytes(r.uint(key)) }

func (r *reader) item(key string) QueryItemStatus { return QueryItemStatus(r.uint(key)) }

// optional returns what read reads, nil if the field is missing or null.
func optional[T any](r *reader, key string, read func(string) T) *T {
	if !r.has(key) {
		return nil
	}
	v := read(key)
	return &v
}

func zeroOr[T any](v *T) T {
	if v == nil {
		return *new(T)
	}
	return *v
}

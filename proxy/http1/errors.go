package http1

// Error says what is wrong with a message. All errors of this package are one
// of the variables below, so that they can be compared.
type Error struct {
	// Status to answer a request with; 502 when an answer was wrong.
	Status int
	// Reason is short, for records and logs; it holds nothing of the message.
	Reason string
}

// Error is the reason.
func (e *Error) Error() string { return "http1: " + e.Reason }

func bad(reason string) *Error { return &Error{Status: 400, Reason: reason} }

// What can be wrong. In an answer each has the meaning of 502.
var (
	ErrRequestLine       = bad("request line is not METHOD target HTTP/1.x")
	ErrMethod            = bad("method is not a token")
	ErrTarget            = bad("request target has a wrong form or a forbidden character")
	ErrAuthority         = bad("authority is not host or host:port")
	ErrScheme            = bad("scheme of the request target is neither http nor https")
	ErrVersion           = &Error{505, "version is not HTTP/1.0 or HTTP/1.1"}
	ErrSimpleRequest     = bad("request without a version (HTTP/0.9)")
	ErrHostMissing       = bad("no Host")
	ErrHostTwice         = bad("more than one Host")
	ErrHostDiffers       = bad("Host differs from the authority of the request target")
	ErrFieldName         = bad("field name is not a token that ends with a colon")
	ErrFold              = bad("folded field line")
	ErrFieldValue        = bad("control character in a field value, or a line that does not end with CR LF")
	ErrLookalike         = bad("field name that some servers take for Content-Length or Transfer-Encoding")
	ErrEnd               = bad("head does not end with an empty line")
	ErrLength            = bad("Content-Length is not one number")
	ErrLengthTwice       = bad("more than one Content-Length")
	ErrCoding            = bad("Transfer-Encoding is not chunked, once")
	ErrCodingAndLength   = bad("both Transfer-Encoding and Content-Length")
	ErrCodingVersion     = bad("Transfer-Encoding in HTTP/1.0")
	ErrCodingUnsupported = &Error{501, "transfer coding other than chunked"}
	ErrConnection        = bad("Connection is not a list of tokens, is too long, or names a field that frames the message")
	ErrConnectBody       = bad("CONNECT with a body")
	ErrExpect            = &Error{417, "expectation other than 100-continue"}
	ErrTooManyFields     = &Error{431, "too many fields"}
	ErrHeadTooLarge      = &Error{431, "head too large"}
	ErrTargetTooLong     = &Error{414, "request target too long"}
	ErrChunkSize         = bad("chunk size is not a hexadecimal number on a line of its own")
	ErrChunkExtension    = bad("chunk extension is malformed or there are too many")
	ErrChunkEnd          = bad("chunk is not followed by CR LF")
	ErrTrailer           = bad("trailer that frames or routes the message")
	ErrStatusLine        = bad("status line is not HTTP/1.x code reason")
	ErrStatus            = bad("status is not 100 to 599")
	ErrInterim           = bad("interim answer with a body, or a 101 without a protocol")
)

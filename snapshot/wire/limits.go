package wire

// Limits of what is sent and accepted.
const (
	// ChunkBytes is the size that a message of a Delta aims for. Only a single
	// row that is larger goes beyond it.
	ChunkBytes = 1 << 20
	// MaxMessage bounds every message in bytes, on both sides.
	MaxMessage = 8 << 20
	// MaxRow bounds one row in bytes: with room for the rest of its message.
	MaxRow = MaxMessage - 64<<10
	// MaxRows bounds the rows of one Delta or file, put and delete together.
	MaxRows = 4 << 20
	// MaxDelta bounds the bytes of all messages of one Delta, and of a file.
	MaxDelta = 1 << 30
	// MaxRecords bounds the records of one batch.
	MaxRecords = 4096
	// MaxRecord bounds one record in bytes.
	MaxRecord = 32 << 10
	// MaxVersion bounds a version in bytes.
	MaxVersion = 64
	// MaxError bounds the reason of an Ack in bytes; longer ones are cut.
	MaxError = 1 << 10
	// MaxNode bounds the name of a node in bytes.
	MaxNode = 253
)

const (
	maxName    = 253      // names of objects
	maxSPIFFE  = 2048     // as the SPIFFE standard says
	maxLabel   = 317      // prefix/name of a label key
	maxText    = 16 << 10 // texts for people
	maxRuleID  = 2048
	maxMTU     = 65535
	maxVNI     = 1<<24 - 1
	maxItems   = 1 << 16 // repeated fields inside a row
	maxFrame   = 65535   // bytes of a captured frame
	maxRoots   = 16      // roots of one trust domain
	maxKeys    = 256 << 10
	maxTrust   = 2*maxName + 8 // trust domain, or trust domain/Domain
	maxCluster = 4 * maxName   // <vni>/<project>/<service>/<port>
	maxReports = 1 << 16       // attachments, and blocks, of one report
)

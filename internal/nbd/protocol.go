package nbd

// The magic numbers, big-endian like every number of the protocol.
const (
	magicInit       uint64 = 0x4e42444d41474943 // NBDMAGIC
	magicOption     uint64 = 0x49484156454f5054 // IHAVEOPT
	magicRep        uint64 = 0x0003e889045565a9
	magicRequest    uint32 = 0x25609513
	magicSimple     uint32 = 0x67446698
	magicStructured uint32 = 0x668e33ef
)

// Lengths on the wire, in bytes.
const (
	requestLen    = 28
	simpleLen     = 16
	structuredLen = 20
	optionLen     = 16
	noZeroesLen   = 124
	descriptorLen = 8
)

// Limits of the protocol's document, in bytes.
const (
	// MaxPayload is the longest READ and WRITE.
	MaxPayload = 32 << 20
	// maxString is the longest name, query or message.
	maxString = 4096
	// blockMin and blockPreferred are what INFO answers for BLOCK_SIZE, beside MaxPayload.
	blockMin       = 1
	blockPreferred = 4096
)

// Flags of the handshake; the client's have the same bits.
const (
	flagFixedNewstyle uint16 = 1 << iota
	flagNoZeroes
)

// Flags of the transmission.
const (
	flagHasFlags        uint16 = 1 << 0
	flagReadOnly        uint16 = 1 << 1
	flagSendFlush       uint16 = 1 << 2
	flagSendFUA         uint16 = 1 << 3
	flagSendTrim        uint16 = 1 << 5
	flagSendWriteZeroes uint16 = 1 << 6
	flagSendDF          uint16 = 1 << 7
	flagCanMultiConn    uint16 = 1 << 8
	flagSendFastZero    uint16 = 1 << 11
)

// option is what a client asks for in the handshake.
type option uint32

const (
	optExportName      option = 1
	optAbort           option = 2
	optList            option = 3
	optInfo            option = 6
	optGo              option = 7
	optStructuredReply option = 8
	optListMetaContext option = 9
	optSetMetaContext  option = 10
)

// repType is the type of a reply to an option.
type repType uint32

const (
	repAck         repType = 1
	repServer      repType = 2
	repInfo        repType = 3
	repMetaContext repType = 4
	repErrUnsup    repType = 1<<31 + 1
	repErrPolicy   repType = 1<<31 + 2
	repErrInvalid  repType = 1<<31 + 3
	repErrUnknown  repType = 1<<31 + 6
)

// The information of INFO and GO.
const (
	infoExport      uint16 = 0
	infoName        uint16 = 1
	infoDescription uint16 = 2
	infoBlockSize   uint16 = 3
)

// command is the type of a request.
type command uint16

const (
	cmdRead        command = 0
	cmdWrite       command = 1
	cmdDisc        command = 2
	cmdFlush       command = 3
	cmdTrim        command = 4
	cmdWriteZeroes command = 6
	cmdBlockStatus command = 7
)

// String is the command's name in the protocol's document.
func (c command) String() string {
	names := map[command]string{cmdRead: "READ", cmdWrite: "WRITE", cmdDisc: "DISC", cmdFlush: "FLUSH",
		cmdTrim: "TRIM", cmdWriteZeroes: "WRITE_ZEROES", cmdBlockStatus: "BLOCK_STATUS"}
	if name, known := names[c]; known {
		return name
	}
	return "unknown"
}

// Flags of a request.
const (
	cmdFlagFUA uint16 = 1 << iota
	cmdFlagNoHole
	cmdFlagDF
	cmdFlagReqOne
	cmdFlagFastZero
)

// Structured chunks.
const (
	replyFlagDone    uint16 = 1
	replyNone        uint16 = 0
	replyOffsetData  uint16 = 1
	replyBlockStatus uint16 = 5
	replyError       uint16 = 1<<15 + 1
)

// The one metadata context, its id on the wire and its states.
const (
	contextAllocation          = "base:allocation"
	contextBase                = "base:"
	contextID           uint32 = 1
	stateHole           uint32 = 1
	stateZero           uint32 = 2
	maxDescriptors             = 8192
	maxDescriptorsBytes        = maxDescriptors * descriptorLen
)

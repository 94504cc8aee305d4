/** What a check found, and the rules it is named by. */

/** `error`: data is wrong or lost without a mark. `warning`: look at it. `info`: worth knowing, nothing is wrong. */
export type Severity = 'error' | 'warning' | 'info'

/** Each rule: how bad its findings are, and what it demands, in one sentence. */
export const RULES = {
  torn_line: { severity: 'error', demands: 'every line is written whole' },
  bad_json: { severity: 'error', demands: 'every line is one JSON object' },
  bad_record: { severity: 'error', demands: 'every record has the keys and types of its schema, in its order' },
  damaged_file: { severity: 'error', demands: 'a file can be read from its start to its end' },
  doubled_hour: { severity: 'error', demands: 'the plain file of a compressed hour holds only younger lines' },
  time_back: { severity: 'error', demands: 'receive times never decrease within a file' },
  wrong_hour: { severity: 'error', demands: 'a line stands in the file of the hour of its receive time' },
  frame_missing: {
    severity: 'error',
    demands: 'the lines of a connection are numbered without a hole within one process'
  },
  frame_order: { severity: 'error', demands: 'each line of a connection stands once, and in the order of the numbers' },
  hour_start: { severity: 'error', demands: 'the frames of an hour begin with an open or a state line' },
  frames_skipped: { severity: 'warning', demands: 'no frame is left out for want of room' },
  unplayed: { severity: 'warning', demands: 'every frame belongs to a connection whose opening or state is there' },
  checksum_mismatch: { severity: 'error', demands: 'a book has the checksum that the exchange sent' },
  not_rebuilt: { severity: 'error', demands: 'a rebuild of the frames gives the same derived lines' },
  no_frames: { severity: 'info', demands: 'derived lines have frames that they can be compared with' },
  leftover: { severity: 'warning', demands: 'a compression leaves no temporary file' },
  retention_due: { severity: 'warning', demands: 'retention compresses and deletes hours in time' },
  foreign_file: { severity: 'info', demands: 'a vault holds hour files only' },
  future_hour: { severity: 'error', demands: 'no hour lies ahead of the clock' },
  empty_file: { severity: 'warning', demands: 'an hour file holds at least one line' },
  torn_file: { severity: 'info', demands: 'no half line was left by a crash' },
  unreadable: { severity: 'error', demands: 'every directory and file of a vault can be read' },
  missing_feed: { severity: 'error', demands: 'an hour of an instrument has all feeds that its other records tell of' },
  dead_capture: { severity: 'error', demands: 'a capture that was not stopped runs and says so' },
  dead_disk: { severity: 'error', demands: 'what a capture receives reaches the disk' },
  mute_instrument: { severity: 'error', demands: 'an instrument that is captured has a live book and snapshots' },
  late_data: { severity: 'warning', demands: 'data come in soon after the exchange made them' },
  open_gap: { severity: 'error', demands: 'a lost book is back within a minute' },
  time_mismatch: { severity: 'error', demands: 'timestamp_utc and recv_us tell the same moment' },
  duplicate_line: { severity: 'error', demands: 'an event is written once' },
  missing_event: { severity: 'error', demands: 'every event of the book is written, up to the last one of its frame' },
  missing_status: { severity: 'error', demands: 'what begins and ends a book is told in status' },
  unknown_order: { severity: 'error', demands: 'an order that changes, is matched or done is in the book' },
  known_order: { severity: 'error', demands: 'an order is opened once' },
  wrong_order: { severity: 'error', demands: 'a match or done tells of the order what the book has of it' },
  sequence_break: {
    severity: 'error',
    demands: 'the numbers of the exchange go on without a break unless a gap is told'
  },
  hour_image: { severity: 'error', demands: 'the events of an hour begin with the whole book as it was' },
  book_differs: { severity: 'error', demands: 'the book rebuilt from the events is the one that snapshots show' },
  snapshot_differs: { severity: 'error', demands: 'a snapshot shows the book that its events make' },
  unsorted_levels: {
    severity: 'error',
    demands: 'the levels of a snapshot stand in the order of their prices, each with a size'
  },
  crossed_book: { severity: 'error', demands: 'no book is crossed for longer than 5 s' },
  wrong_best: { severity: 'error', demands: 'best prices are those of the first levels' },
  wrong_mid: { severity: 'error', demands: 'mid_price is the exact middle of the best prices' },
  wrong_stats: { severity: 'error', demands: 'stats are the exact sums of the book' },
  wrong_number: {
    severity: 'error',
    demands: 'seqId, prevSeqId and checksum of a snapshot are the last ones of its events'
  },
  wrong_synced_at: { severity: 'error', demands: 'synced_at is when the book was last built from an image' },
  unflagged_gap: { severity: 'error', demands: 'a loss of continuity is marked by a flagged snapshot' },
  wrong_flag: { severity: 'error', demands: 'a flagged snapshot stands only where continuity was lost' },
  duplicate_snapshot: { severity: 'error', demands: 'there is one snapshot in each slot of the cadence' },
  missing_slot: { severity: 'error', demands: 'a live book has a snapshot in each slot of the cadence' },
  late_tick: { severity: 'warning', demands: 'a capture has time for a snapshot in each slot of the cadence' },
  duplicate_trade: { severity: 'error', demands: 'a trade is written once' },
  wrong_trade: { severity: 'error', demands: 'a trade has a price and a size' },
  far_exchange_time: { severity: 'warning', demands: 'the time of the exchange is near the receive time' },
  killed: { severity: 'warning', demands: 'a process that captures says when it stops' },
  unended: { severity: 'warning', demands: 'a capture goes on until it is stopped' },
  unhealed_gap: { severity: 'warning', demands: 'a lost book comes back before the records end' },
  no_data: { severity: 'error', demands: 'there is something to check' }
} as const satisfies Record<string, { severity: Severity; demands: string }>

/** The name of a rule. */
export type RuleId = keyof typeof RULES

/** One thing that is wrong with a vault, and where. */
export interface Finding {
  readonly rule: RuleId
  readonly severity: Severity
  /** Empty where it concerns no exchange, as `name` and `feed` where it concerns none. */
  readonly exchange: string
  /** The folder name of the instrument or connection. */
  readonly name: string
  readonly feed: string
  /** Relative to the vault, with forward slashes; empty where it concerns no file. */
  readonly file: string
  /** Counted from 1 in the uncompressed file; null where it concerns no line. */
  readonly line: number | null
  /** The moment it is about, µs; null where there is none. */
  readonly us: number | null
  /** What is wrong, in plain words. */
  readonly message: string
}

import { gunzipSync } from 'node:zlib'
import crc32 from 'crc-32'
import { WebSocket } from 'ws'

type Row = [number, number, number]

/** A client that keeps everything it hears and lets a test wait for a condition. */
export class Client {
  readonly texts: string[] = []
  /** The payloads of the pings that the other side sent. */
  readonly pings: string[] = []
  closeCode: number | undefined
  readonly socket: WebSocket
  private readonly waiters = new Set<() => void>()
  private readonly listeners: ((text: string) => void)[] = []

  /** Answers pings of the protocol, unless `autoPong` is false. Binary frames are taken for gzip. */
  constructor(url: string, { autoPong = true } = {}) {
    this.socket = new WebSocket(url, { perMessageDeflate: false, autoPong })
    this.socket.on('ping', payload => {
      this.pings.push(String(payload))
      for (const waiter of [...this.waiters]) waiter()
    })
    this.socket.on('message', (data, isBinary) => {
      const text = String(isBinary ? gunzipSync(data as Buffer) : data)
      this.texts.push(text)
      for (const listener of this.listeners) listener(text)
      for (const waiter of [...this.waiters]) waiter()
    })
    this.socket.on('error', () => undefined)
    this.socket.on('close', code => {
      this.closeCode = code
      for (const waiter of [...this.waiters]) waiter()
    })
  }

  /** Resolves when the connection stands, rejects when it is refused. */
  opened(): Promise<this> {
    return new Promise((resolve, reject) => {
      this.socket.once('open', () => resolve(this))
      this.socket.once('error', reject)
    })
  }

  onText(listener: (text: string) => void): void {
    this.listeners.push(listener)
  }

  send(message: unknown): void {
    this.socket.send(typeof message === 'string' ? message : JSON.stringify(message))
  }

  /** Waits until the condition gives something; checked after each frame and at the close. */
  until<T>(condition: () => T | undefined | false): Promise<T> {
    return new Promise(resolve => {
      const check = (): void => {
        const value = condition()
        if (value === undefined || value === false) return
        this.waiters.delete(check)
        resolve(value)
      }
      this.waiters.add(check)
      check()
    })
  }

  /** Waits for an event object with these values. */
  event(wanted: Record<string, unknown>): Promise<Record<string, unknown>> {
    return this.until(() => {
      for (const text of this.texts) {
        const value = text.startsWith('{') ? (JSON.parse(text) as Record<string, unknown>) : {}
        if (Object.entries(wanted).every(([key, want]) => value[key] === want)) return value
      }
      return undefined
    })
  }

  close(): void {
    this.socket.terminate()
  }
}

/** Rebuilds Bitfinex books from the frames with flags 229376, strictly: what does not fit is noted as a mistake. */
export class BitfinexBook {
  readonly mistakes: string[] = []
  readonly rows: string[] = []
  readonly checksums: boolean[] = []
  readonly holes: string[] = []
  deepest = 0
  trades = { te: 0, tu: 0 }
  beats = 0
  updates = 0
  private readonly precision: 'R0' | 'P0'
  private readonly channels = new Map<number, string>()
  /** By order id (R0) or price (P0); the key's side is the sign of the amount. */
  private readonly book = new Map<string, Row>()
  private isSynced = false
  private sequence = 0

  constructor(client: Client, precision: 'R0' | 'P0') {
    this.precision = precision
    client.onText(text => {
      const value = JSON.parse(text) as unknown
      if (Array.isArray(value)) this.frame(value)
      else this.event(value as Record<string, unknown>)
    })
  }

  get isReady(): boolean {
    return this.isSynced
  }

  private event(event: Record<string, unknown>): void {
    if (event.event === 'subscribed') this.channels.set(event.chanId as number, event.channel as string)
  }

  private frame(frame: unknown[]): void {
    const channel = this.channels.get(frame[0] as number)
    const sequence = frame.at(-2) as number
    if (sequence !== this.sequence + 1) this.holes.push(`${this.sequence} -> ${sequence}`)
    this.sequence = sequence
    if (!channel) this.mistakes.push(`unknown channel: ${JSON.stringify(frame).slice(0, 100)}`)
    const payload = frame[1]
    if (payload === 'hb') this.beats++
    else if (payload === 'te' || payload === 'tu') this.trades[payload]++
    else if (payload === 'cs') this.checksums.push(frame[2] === this.checksum())
    else if (channel === 'book') this.bookRows(payload as Row | Row[])
  }

  private bookRows(payload: Row | Row[]): void {
    if (!this.isSynced) {
      for (const row of payload as Row[]) this.book.set(this.key(row), row)
      this.isSynced = true
    } else {
      const row = payload as Row
      this.rows.push(JSON.stringify(row))
      this.updates++
      this.apply(row)
    }
    for (const sign of [1, -1]) this.deepest = Math.max(this.deepest, this.side(sign).length)
  }

  private apply(row: Row): void {
    const key = this.key(row)
    // The price of R0, the count of P0.
    const isDeletion = row[1] === 0
    if (!isDeletion) this.book.set(key, row)
    else if (!this.book.delete(key)) this.mistakes.push(`delete of an unknown row: ${JSON.stringify(row)}`)
  }

  private key(row: Row): string {
    return this.precision === 'R0' ? String(row[0]) : `${Math.sign(row[2])}:${row[0]}`
  }

  private side(sign: number): Row[] {
    return [...this.book.values()].filter(row => Math.sign(row[2]) === sign)
  }

  /** The best rows: by price, then by id. */
  private best(sign: number): Row[] {
    const price = this.precision === 'R0' ? 1 : 0
    return this.side(sign).sort((a, b) => (b[price]! - a[price]!) * sign || a[0] - b[0])
  }

  private checksum(): number {
    const [bids, asks] = [this.best(1), this.best(-1)]
    const words: number[] = []
    for (let index = 0; index < 25; index++) {
      for (const row of [bids[index], asks[index]]) if (row) words.push(row[0], row[2])
    }
    return crc32.str(words.join(':'))
  }
}

interface OkxData {
  asks: string[][]
  bids: string[][]
  checksum: number
  prevSeqId: number
  seqId: number
}

/** Rebuilds one OKX book and follows its chain. */
export class OkxBook {
  readonly mistakes: string[] = []
  readonly breaks: string[] = []
  readonly checksums: boolean[] = []
  readonly links: string[] = []
  deepest = 0
  updates = 0
  removals = 0
  keepAlives = 0
  trades = 0
  private readonly bids = new Map<string, string[]>()
  private readonly asks = new Map<string, string[]>()
  private last = -1

  constructor(client: Client, instId: string) {
    client.onText(text => {
      if (!text.startsWith('{')) return
      const frame = JSON.parse(text) as { arg?: { channel: string; instId: string }; action?: string; data?: OkxData[] }
      if (frame.arg?.instId !== instId || !frame.data) return
      if (frame.arg.channel === 'trades') this.trades++
      else this.frame(frame.action!, frame.data[0]!)
    })
  }

  private frame(action: string, data: OkxData): void {
    if (action === 'snapshot') {
      this.bids.clear()
      this.asks.clear()
      if (data.prevSeqId !== -1) this.mistakes.push('snapshot with a predecessor')
    } else {
      this.updates++
      if (data.prevSeqId !== this.last) this.breaks.push(`${this.last} -> ${data.prevSeqId}`)
      if (data.prevSeqId === data.seqId) this.keepAlives++
      this.links.push(`${data.prevSeqId}>${data.seqId}`)
    }
    this.last = data.seqId
    this.apply(this.bids, data.bids)
    this.apply(this.asks, data.asks)
    this.deepest = Math.max(this.deepest, this.bids.size, this.asks.size)
    if (data.checksum !== 0) this.checksums.push(data.checksum === this.checksum())
  }

  private apply(side: Map<string, string[]>, rows: string[][]): void {
    for (const row of rows) {
      if (row[1] !== '0') side.set(row[0]!, row)
      else {
        this.removals++
        if (!side.delete(row[0]!)) this.mistakes.push(`removal of an unknown level: ${row}`)
      }
    }
  }

  private checksum(): number {
    const best = (side: Map<string, string[]>, sign: number): string[][] =>
      [...side.values()].sort((a, b) => (Number(b[0]) - Number(a[0])) * sign)
    const [bids, asks] = [best(this.bids, 1), best(this.asks, -1)]
    if (Number(bids[0]?.[0]) >= Number(asks[0]?.[0])) this.mistakes.push('crossed')
    const words: string[] = []
    for (let index = 0; index < 25; index++) {
      for (const row of [bids[index], asks[index]]) if (row) words.push(row[0]!, row[1]!)
    }
    return crc32.str(words.join(':'))
  }
}

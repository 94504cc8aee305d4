import { assert } from '../core/errors.ts'
import type { FeedKind, Instrument } from '../core/instrument.ts'
import type { Credentials, Exchange, FetchAnswer, FrameForm } from '../exchanges/exchange.ts'
import { Connection, type ConnectionState, type Requests } from './connection.ts'
import type { BookKeeper } from './keeper.ts'
import { type EngineConfig, type Sink, Subject, type SubjectState } from './subject.ts'

/** Version of what `open` and `state` lines hold. */
export const STATE_VERSION = 3

/** Why a connection ended. `stopped` and `replaced` lose nothing. */
export type CloseCause = 'stopped' | 'replaced' | 'lost'

/** What an `open` line says about its connection, and what a `state` line repeats. */
export interface OpenDetail {
  readonly v: number
  readonly config: EngineConfig
  readonly instruments: readonly Instrument[]
  /** What the connection is for. */
  readonly feeds: readonly FeedKind[]
  readonly replaces: string | null
  /** What is known of the instruments; in the first line of a connection in an hour. */
  readonly subjects?: readonly SubjectState[]
}

/** What a `state` line holds. */
export interface StateDetail extends OpenDetail {
  readonly connection: ConnectionState
}

/**
 * The capture of one exchange as a pure function: lines of the frames feed in, records and requests out. Holds no
 * socket, file, clock or timer. Live captures and rebuilds drive the same code with the same lines.
 */
export class Engine {
  readonly subjects = new Map<string, Subject>()
  private readonly connections = new Map<string, Connection>()
  private recent: Connection | undefined
  private readonly exchange: Exchange
  private readonly sink: Sink
  private readonly requests: Requests
  private readonly credentials: Credentials | null

  constructor(exchange: Exchange, sink: Sink, requests: Requests, credentials: Credentials | null = null) {
    this.exchange = exchange
    this.sink = sink
    this.requests = requests
    this.credentials = credentials
  }

  /** The instrument's subject, made when it is new. */
  subject(instrument: Instrument, config: EngineConfig): Subject {
    let subject = this.subjects.get(instrument.instId)
    if (subject === undefined) {
      subject = new Subject(instrument, config, this.sink)
      this.subjects.set(instrument.instId, subject)
    }
    return subject
  }

  private connection(name: string): Connection {
    // Lines come in long rows of one connection.
    if (this.recent?.name === name) return this.recent
    const connection = this.connections.get(name)
    assert(connection, `no open connection ${name}`)
    this.recent = connection
    return connection
  }

  private make(name: string, detail: OpenDetail): Connection {
    const subjects = detail.instruments.map(instrument => {
      const { instId } = instrument
      const known = this.subjects.has(instId)
      const subject = this.subject(instrument, detail.config)
      const state = known ? undefined : detail.subjects?.find(s => s.instId === instId)
      if (state) subject.restore(state)
      return subject
    })
    const { config, feeds, replaces } = detail
    const { exchange, requests, credentials } = this
    const connection = new Connection(name, exchange, config, subjects, feeds, replaces, requests, credentials)
    this.connections.set(name, connection)
    this.recent = connection
    return connection
  }

  /** `open`: a connection is established. */
  open(us: number, name: string, frame: number, detail: OpenDetail): void {
    const connection = this.make(name, detail)
    connection.at(us, frame)
    connection.open()
  }

  /** First half of `in`: reads the frame without any effect, so that its line can be written before its records. */
  read(name: string, text: string): FrameForm {
    return this.connection(name).read(text)
  }

  /** Second half of `in`: applies the frame read last. */
  apply(us: number, name: string, frame: number): void {
    const connection = this.connection(name)
    connection.at(us, frame)
    connection.apply()
  }

  /** `http`: the answer to a REST request of the connection. */
  fetched(us: number, name: string, frame: number, id: string, answer: FetchAnswer): void {
    const connection = this.connection(name)
    connection.at(us, frame)
    connection.fetched(id, answer)
  }

  /** `in`, of a frame that is no text or too large: kept, counted, not read. */
  unreadable(us: number, name: string, frame: number, why: string): void {
    const connection = this.connection(name)
    connection.at(us, frame)
    connection.log('error', 'Unreadable frame kept', { why })
    connection.lostFrames('unreadable', 1)
  }

  /** `tick`: time has passed; snapshots are due. */
  tick(us: number, name: string, frame: number): void {
    const connection = this.connection(name)
    connection.at(us, frame)
    connection.tick()
  }

  /** `skip`: frames that came could not be kept; or, when a damaged vault is rebuilt, they were and cannot be read. */
  skip(us: number, name: string, frame: number, count: number, reason: 'overload' | 'damaged' = 'overload'): void {
    const connection = this.connection(name)
    connection.at(us, frame)
    connection.loseAll(reason, null, count, true)
    connection.lostFrames(reason, count)
  }

  /** `close`: the connection has ended. */
  close(us: number, name: string, frame: number, cause: CloseCause, code: number | null, reason: string): void {
    const connection = this.connection(name)
    connection.at(us, frame)
    this.connections.delete(name)
    for (const keeper of connection.keepers) {
      if (cause === 'lost') keeper.status('disconnected', { code, reason })
      if (cause === 'stopped') continue
      const { subject } = keeper
      const other = subject.primary === keeper ? this.liveKeeper(subject) : undefined
      if (other) other.promote(us)
      else keeper.lose('disconnect', null, code, false)
      if (subject.primary === keeper) subject.primary = null
    }
    this.recent = undefined
  }

  /** A live book of the subject on any open connection. */
  private liveKeeper(subject: Subject): BookKeeper | undefined {
    for (const connection of this.connections.values()) {
      const found = connection.keepers.find(keeper => keeper.subject === subject && keeper.live)
      if (found) return found
    }
    return undefined
  }

  /** `state`: a new hour opens with what is known. In a rebuild the connection comes to life by it. */
  hour(us: number, name: string, frame: number, detail?: StateDetail): void {
    const known = this.connections.get(name)
    const connection = known ?? (detail && this.make(name, detail))
    assert(connection, `no connection ${name} to open an hour with`)
    if (known === undefined && detail) connection.restore(detail.connection)
    connection.at(us, frame)
    for (const keeper of connection.keepers) keeper.hour(us, connection.source)
  }

  /** What an `open` line must say of its instruments. */
  subjectStates(instruments: readonly Instrument[]): SubjectState[] {
    return instruments
      .map(({ instId }) => this.subjects.get(instId))
      .filter(s => s !== undefined)
      .map(s => s.state())
  }

  /** What a `state` line must say. */
  connectionState(name: string): ConnectionState {
    return this.connection(name).state()
  }
}

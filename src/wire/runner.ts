import { setMaxListeners } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import pRetry, { AbortError } from 'p-retry'
import type { Requests } from '../capture/connection.ts'
import type { CloseCause } from '../capture/engine.ts'
import { messageOf } from '../core/errors.ts'
import type { FeedKind, Instrument } from '../core/instrument.ts'
import type { Exchange, FetchRequest, InstrumentInfo, Route } from '../exchanges/exchange.ts'
import type { Clock } from './clock.ts'
import type { Fetcher } from './fetcher.ts'
import type { Journal } from './journal.ts'
import { backoffMs, Gate, isRefusal } from './pace.ts'
import { Socket, UpgradeRefused } from './socket.ts'

/** Until a connection name is asked for again. */
const NAME_MS = 1000
/** An outage so soon after the last one waits a moment before it is met. */
const SHORT_LIFE_MS = 10_000
/** A connection that lasted so long was no failed attempt, though a book of it may have been refused all the time. */
const LONG_LIFE_MS = 60_000
const TICK_MS_MAX = 2000
const OUTBOX_MAX = 10_000

/** A share of the instruments and the connection that serves it. */
interface Slot {
  readonly name: string
  readonly route: Route
  readonly instruments: readonly Instrument[]
  readonly replaces: string | null
  socket: Socket | null
  /** Ends what was begun for the socket: requests, messages that wait for their turn. */
  life: AbortController
  /** Messages that wait for their turn, as sent and as recorded; the next may go at `sendDueMs`. */
  outbox: [text: string, recorded: string][]
  sendDueMs: number
  /** When its last attempt to connect began, of `performance.now`. */
  passedMs: number
  /** When that attempt led to a socket; null before it has. */
  socketMs: number | null
  /** Its replacement is on its way: when it ends, it ends for good. */
  retiring: boolean
  settled: () => void
  ended: (why: string) => void
}

/** What a runner needs. */
export interface RunnerParts {
  readonly exchange: Exchange
  readonly fetcher: Fetcher
  readonly clock: Clock
  /** The way to the exchange, for all runners of it; missing: one of its own. */
  readonly gate?: Gate
  /** Takes a connection name that no running process has; `release` gives it back. */
  takeName(): string
  releaseName(name: string): void
  storeMetadata(info: InstrumentInfo): void
  log(level: 'debug' | 'info' | 'warn' | 'error', message: string, facts: Record<string, unknown>): void
}

/** Keeps the connections of one exchange alive until it is stopped: the forever loop and the timers. */
export class Runner implements Requests {
  private readonly parts: RunnerParts
  private journal!: Journal
  private readonly slots = new Map<string, Slot>()
  private readonly gate: Gate
  private readonly stopping = new AbortController()
  private readonly loops = new Set<Promise<void>>()
  private ticker: NodeJS.Timeout | undefined
  /** Connections that ended by a mistake of ours and were begun anew. */
  restarts = 0

  constructor(parts: RunnerParts) {
    this.parts = parts
    // Each connection of an exchange listens for the stop.
    setMaxListeners(0, this.stopping.signal)
    const { connectsPerMinuteMax, connectSpacingMs } = parts.exchange.limits
    this.gate = parts.gate ?? new Gate(connectsPerMinuteMax, connectSpacingMs)
  }

  /** The journal that writes the lines of this runner's connections. */
  attach(journal: Journal): void {
    this.journal = journal
  }

  /** Connects: for each route with wanted feeds one connection for as many instruments as it allows. */
  start(
    instruments: readonly Instrument[],
    routes: readonly Route[],
    wanted: readonly FeedKind[],
    cadenceMs: number
  ): void {
    for (const route of routes) {
      const feeds = route.feeds.filter(feed => wanted.includes(feed))
      const size = route.instrumentsMax
      for (let at = 0; feeds.length > 0 && at < instruments.length; at += size)
        this.launch({ ...route, feeds }, instruments.slice(at, at + size), null)
    }
    this.scheduleTick(cadenceMs / Math.ceil(cadenceMs / TICK_MS_MAX))
  }

  private launch(route: Route, instruments: readonly Instrument[], replaces: string | null): void {
    let name: string
    try {
      name = this.parts.takeName()
    } catch (error) {
      // A full disk takes no lock file: the name is asked for again, the capture goes on.
      this.log('error', 'No connection name to be had', { error: messageOf(error) })
      setTimeout(() => this.stopping.signal.aborted || this.launch(route, instruments, replaces), NAME_MS).unref()
      return
    }
    const nothing = () => undefined
    const slot: Slot = {
      name,
      route,
      instruments,
      replaces,
      socket: null,
      life: new AbortController(),
      outbox: [],
      sendDueMs: 0,
      passedMs: 0,
      socketMs: null,
      retiring: false,
      settled: nothing,
      ended: nothing
    }
    this.slots.set(slot.name, slot)
    const loop = this.keep(slot).finally(() => {
      this.loops.delete(loop)
      this.slots.delete(slot.name)
      this.parts.releaseName(slot.name)
    })
    this.loops.add(loop)
  }

  /** Serves a connection name whatever happens: a mistake of ours costs a pause, and nobody has to do anything. */
  private async keep(slot: Slot): Promise<void> {
    const { signal } = this.stopping
    for (let failures = 1; !signal.aborted && !slot.retiring; failures++) {
      try {
        await this.serve(slot)
      } catch (error) {
        if (signal.aborted || slot.retiring) return
        this.restarts++
        const waitMs = Math.round(backoffMs(failures))
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
        this.log('error', 'Connection failed by a mistake of ours, and begins anew', {
          conn: slot.name,
          error: text,
          count: this.restarts,
          wait_ms: waitMs
        })
        await sleep(waitMs, undefined, { signal }).catch(() => undefined)
      }
    }
  }

  /** One connection name, outage after outage. Each outage has a back-off of its own. */
  private async serve(slot: Slot): Promise<void> {
    const { signal } = this.stopping
    while (!signal.aborted && !slot.retiring) {
      const end = await pRetry(() => this.connect(slot), {
        retries: Number.POSITIVE_INFINITY,
        // The pauses are made in `onFailed`: those of p-retry have no jitter at their longest.
        minTimeout: 0,
        signal,
        shouldRetry: () => !slot.retiring,
        onFailedAttempt: ({ error, attemptNumber }) => this.onFailed(slot, error, attemptNumber)
      })
      const liveMs = performance.now()
      await end()
      const livedMs = performance.now() - liveMs
      if (livedMs < SHORT_LIFE_MS && !slot.retiring) await sleep(backoffMs(1), undefined, { signal })
    }
  }

  /** Waits before the next attempt: as long as the exchange says, or longer after each failure. */
  private async onFailed(slot: Slot, error: Error, attempt: number): Promise<void> {
    const { signal } = this.stopping
    const facts = { conn: slot.name, attempt, error: error.message }
    const isRefused = error instanceof UpgradeRefused && (isRefusal(error.status) || error.waitMs > 0)
    // A refusal concerns everybody who comes from this address: `connect` waits for its end.
    const refusedMs = isRefused ? this.gate.refused(error.waitMs, slot.passedMs) : 0
    const waitMs = isRefused ? 0 : backoffMs(attempt)
    this.log('warn', 'Connecting failed', { ...facts, wait_ms: Math.round(refusedMs || waitMs) })
    if (!signal.aborted && !slot.retiring) await sleep(waitMs, undefined, { signal })
  }

  /**
   * Connects and waits until every book is live: only then is the outage over. Resolves to what waits for its
   * end. Rejects when the connection ends before.
   */
  private async connect(slot: Slot): Promise<() => Promise<void>> {
    const { signal } = this.stopping
    await this.gate.pass(signal)
    slot.passedMs = performance.now()
    slot.socketMs = null
    let settle: () => void = () => undefined
    let fail: (error: Error) => void = () => undefined
    let finish: () => void = () => undefined
    const live = new Promise<void>((resolve, reject) => {
      settle = resolve
      fail = reject
    })
    const end = new Promise<void>(resolve => {
      finish = resolve
    })
    // An end before the first await below must not count as unhandled.
    live.catch(() => undefined)
    slot.settled = settle
    slot.ended = why => {
      if (slot.socketMs !== null && performance.now() - slot.socketMs > LONG_LIFE_MS) settle()
      fail(new Error(`ended before its books were live: ${why}`))
      finish()
    }
    const { url, feeds } = slot.route
    await Socket.open(url, signal, socket => {
      if (signal.aborted) {
        socket.leave()
        slot.ended('stopping')
        return { onMessage: () => undefined, onEnd: () => undefined }
      }
      this.log('info', 'Connected', { conn: slot.name, url, feeds, instruments: slot.instruments.length })
      this.gate.admitted()
      this.begin(slot, socket)
      return {
        onMessage: (data, isBinary) => this.journal.in(slot.name, data, isBinary),
        onEnd: (code, reason) => this.onEnd(slot, code, reason)
      }
    })
    await live
    return () => end
  }

  /** A socket is open: its lines begin. Throws when they cannot. */
  private begin(slot: Slot, socket: Socket): void {
    slot.socket = socket
    slot.socketMs = performance.now()
    slot.life = new AbortController()
    setMaxListeners(0, slot.life.signal)
    slot.outbox = []
    slot.sendDueMs = 0
    const replaces = slot.replaces !== null && this.slots.get(slot.replaces)?.retiring ? slot.replaces : null
    try {
      this.journal.open(slot.name, slot.route.url, slot.instruments, slot.route.feeds, replaces)
    } catch (error) {
      this.drop(slot)
      // Half of it may have begun: the next attempt must find nothing open.
      this.endLine(slot.name, 'lost', 1006, 'could not begin')
      // No outage that another attempt would end: `keep` takes care of it.
      throw new AbortError(error instanceof Error ? error : messageOf(error))
    }
  }

  /** Writes the `close` line. A mistake of ours there must not end the process, nor keep the others from theirs. */
  private endLine(name: string, cause: CloseCause, code: number, reason: string): void {
    try {
      this.journal.close(name, cause, code, reason)
    } catch (error) {
      this.log('error', 'A connection could not be closed well', { conn: name, error: messageOf(error) })
    }
  }

  private onEnd(slot: Slot, code: number, reason: string): void {
    this.drop(slot)
    this.log('warn', 'Disconnected', { conn: slot.name, code, reason })
    this.endLine(slot.name, 'lost', code, reason)
    slot.ended(`${code} ${reason}`)
  }

  /** Ticks stand on multiples of their period on the clock; a timer that fires early waits for the rest. */
  private scheduleTick(periodMs: number): void {
    const periodUs = periodMs * 1000
    let nextUs = (Math.floor(this.parts.clock.now() / periodUs) + 1) * periodUs
    const wait = () => {
      const leftMs = (nextUs - this.parts.clock.now()) / 1000
      if (leftMs > 0) {
        this.ticker = setTimeout(wait, Math.max(1, leftMs))
        return
      }
      this.journal.tick()
      nextUs = (Math.floor(this.parts.clock.now() / periodUs) + 1) * periodUs
      this.ticker = setTimeout(wait, (nextUs - this.parts.clock.now()) / 1000)
    }
    wait()
  }

  /** The slot's socket is no more. */
  private drop(slot: Slot): void {
    slot.socket = null
    slot.life.abort()
  }

  send(name: string, text: string, recorded: string): void {
    const slot = this.slots.get(name)
    if (!slot?.socket) return
    if (slot.outbox.length >= OUTBOX_MAX) return slot.socket.terminate('more to send than the exchange takes')
    slot.outbox.push([text, recorded])
    if (slot.outbox.length === 1) this.flush(slot, slot.life.signal)
  }

  /** Sends what waits, at the pace of the exchange. */
  private flush(slot: Slot, signal: AbortSignal): void {
    while (slot.outbox.length > 0 && !signal.aborted) {
      const waitMs = slot.sendDueMs - performance.now()
      if (waitMs > 0) {
        setTimeout(() => this.flush(slot, signal), Math.ceil(waitMs))
        return
      }
      const [text, recorded] = slot.outbox.shift()!
      slot.sendDueMs = performance.now() + this.parts.exchange.limits.sendSpacingMs
      if (slot.socket?.send(text)) this.journal.out(slot.name, recorded)
    }
  }

  fetch(name: string, request: FetchRequest): void {
    const slot = this.slots.get(name)
    if (!slot?.socket) return
    const { fetcher } = this.parts
    const { signal } = slot.life
    void fetcher
      .send(request, signal)
      .then(({ status, text }) => {
        if (!signal.aborted && slot.socket) this.journal.fetched(name, fetcher.url(request.path), request, status, text)
      })
      .catch(error => {
        // At the end of the connection nobody waits for the answer.
        if (signal.aborted) return
        this.log('error', 'Answer could not be taken', { conn: name, error: messageOf(error) })
        slot.socket?.terminate('an answer could not be taken')
      })
  }

  metadata(info: InstrumentInfo): void {
    this.parts.storeMetadata(info)
  }

  hangup(name: string, reason: string): void {
    this.slots.get(name)?.socket?.terminate(reason)
  }

  replace(name: string, reason: string): void {
    const slot = this.slots.get(name)
    if (slot === undefined || slot.retiring) return
    slot.retiring = true
    this.log('info', 'Planned change of connection', { conn: name, reason })
    this.launch(slot.route, slot.instruments, name)
  }

  leave(name: string): void {
    const slot = this.slots.get(name)
    // Names are used again: only a connection that is being replaced may be left.
    if (!slot?.socket || !slot.retiring) return
    slot.socket.leave()
    this.drop(slot)
    this.endLine(name, 'replaced', 1000, 'replaced')
    slot.ended('replaced')
  }

  settled(name: string): void {
    this.slots.get(name)?.settled()
  }

  log(level: 'debug' | 'info' | 'warn' | 'error', message: string, facts: Record<string, unknown>): void {
    this.parts.log(level, message, { exchange: this.parts.exchange.id, ...facts })
  }

  /** Ends all connections cleanly. */
  async stop(): Promise<void> {
    clearTimeout(this.ticker)
    for (const slot of this.slots.values()) {
      if (!slot.socket) continue
      slot.socket.leave()
      this.drop(slot)
      this.endLine(slot.name, 'stopped', 1000, 'stopped')
      slot.ended('stopped')
    }
    this.stopping.abort()
    await Promise.all(this.loops)
  }
}

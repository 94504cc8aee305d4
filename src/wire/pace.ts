import { setTimeout as sleep } from 'node:timers/promises'

/** Lets at most so many things begin within any minute, none sooner than `spacingMs` after the one before, in order. */
export class Pace {
  private readonly perMinute: number
  private readonly spacingMs: number
  private readonly begun: number[] = []
  private turn: Promise<void> = Promise.resolve()

  constructor(perMinute: number, spacingMs = 0) {
    this.perMinute = perMinute
    this.spacingMs = spacingMs
  }

  /** Waits for its turn. Rejects when the signal aborts. */
  wait(signal: AbortSignal): Promise<void> {
    const mine = this.turn.then(() => this.take(signal))
    this.turn = mine.catch(() => undefined)
    return mine
  }

  private async take(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const last = this.begun.at(-1) ?? Number.NEGATIVE_INFINITY
    const oldest = this.begun.length >= this.perMinute ? this.begun.shift()! + 60_000 : 0
    const waitMs = Math.max(last + this.spacingMs, oldest) - performance.now()
    if (waitMs > 0) await sleep(waitMs, undefined, { signal })
    this.begun.push(performance.now())
  }
}

/** The snapshots of a feed counted by the slots they were due in. */
import { hourOf } from '../core/time.ts'

/** The regular snapshots of one hour. */
export interface HourSlots {
  /** Slots of the cadence that have a snapshot. */
  readonly count: number
  readonly firstUs: number
  readonly lastUs: number
  readonly cadenceMs: number
}

/** A stretch of time that lacks the snapshots that were due: from one slot up to, not including, another. */
export interface Hole {
  readonly fromUs: number
  readonly toUs: number
  readonly cadenceUs: number
}

const DEFAULT_CADENCE_MS = 2000
/** Distances of fewer snapshots tell no cadence. */
const DISTANCES_MIN = 2

/** What cadences begin with, and how far off a round one may seem. */
const ROUND_FIGURES = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9, 10]
const ROUND_SHARE_MAX = 0.05
/** A snapshot that is due may be taken so much later, or half a cadence. */
const LATE_US_MAX = 500_000

/** Takes the receive times of one feed's regular snapshots, in order. Keeps those of one hour, and of every hour a sum. */
export class SlotCounter {
  readonly hours = new Map<number, HourSlots>()
  readonly holes: Hole[] = []
  private hour = Number.NaN
  private times: number[] = []
  private cadenceMs: number | undefined
  /** The last snapshot before this hour; NaN where there is none. */
  private beforeUs = Number.NaN
  /** The hour that was summed up last. */
  private last: HourSlots | undefined

  /** `cadenceMs` where it is known; else it is inferred from the distances of the hour's snapshots. */
  take(us: number, cadenceMs?: number): void {
    const hour = hourOf(us)
    if (hour !== this.hour) this.finish()
    this.hour = hour
    this.cadenceMs = cadenceMs
    this.times.push(us)
  }

  /** The last snapshot, µs; NaN before the first. */
  get lastUs(): number {
    return this.last?.lastUs ?? Number.NaN
  }

  /** The cadence of the last hour, µs; 0 before the first. */
  get lastCadenceUs(): number {
    return (this.last?.cadenceMs ?? 0) * 1000
  }

  /** What is missing after the last snapshot, up to a moment (µs); undefined where there was none. */
  holeUntil(us: number): Hole | undefined {
    if (this.last === undefined) return undefined
    const cadenceUs = this.last.cadenceMs * 1000
    const fromUs = (Math.floor(this.last.lastUs / cadenceUs) + 1) * cadenceUs
    return { fromUs, toUs: us, cadenceUs }
  }

  /** Sums the hour up that was taken last. Call it before `hours` and `holes` are read. */
  finish(): void {
    const { times } = this
    if (times.length === 0) return
    const cadenceMs = this.cadenceMs ?? inferCadence(times) ?? this.last?.cadenceMs
    const cadenceUs = (cadenceMs ?? DEFAULT_CADENCE_MS) * 1000
    let count = 0
    let last = Math.floor(this.beforeUs / cadenceUs)
    for (const us of times) {
      const slot = Math.floor(us / cadenceUs)
      // A process that starts anew may take the slot again that the last one had.
      if (slot === last) continue
      if (slot > last + 1) this.holes.push({ fromUs: (last + 1) * cadenceUs, toUs: slot * cadenceUs, cadenceUs })
      count++
      last = slot
    }
    const [firstUs, lastUs] = [times[0]!, times.at(-1)!]
    this.last = { count, firstUs, lastUs, cadenceMs: cadenceUs / 1000 }
    this.hours.set(this.hour, this.last)
    this.beforeUs = lastUs
    this.times = []
  }
}

/** The distance that is usual between snapshots, ms; timers are late by a little, so that round figures are preferred. */
function inferCadence(times: readonly number[]): number | undefined {
  const distances = times.slice(1).map((us, at) => us - times[at]!)
  if (distances.length < DISTANCES_MIN) return undefined
  const ms = distances.sort((a, b) => a - b)[distances.length >> 1]! / 1000
  const scale = 10 ** Math.floor(Math.log10(ms))
  const round = ROUND_FIGURES.map(figure => figure * scale).find(each => Math.abs(ms / each - 1) < ROUND_SHARE_MAX)
  return round ?? Number(ms.toPrecision(2))
}

/**
 * The slots that begin within [fromUs, toUs) of a stretch that was to be captured, as numbers of slots, both included;
 * without the one so near the end that it may never have been taken, where `isOver` says that capturing ended there.
 */
export function slotsWithin(
  fromUs: number,
  toUs: number,
  cadenceMs: number,
  isOver: boolean
): { first: number; last: number } {
  const cadenceUs = cadenceMs * 1000
  const endUs = isOver ? toUs - lateUs(cadenceUs) : toUs
  return { first: Math.ceil(fromUs / cadenceUs), last: Math.ceil(endUs / cadenceUs) - 1 }
}

/** Cuts known stretches out of a hole: what is left of it and lacks at least one snapshot. */
export function cutHole(hole: Hole, known: readonly { readonly fromUs: number; readonly toUs: number }[]): Hole[] {
  const { cadenceUs } = hole
  let left = [hole]
  for (const { fromUs, toUs } of known) {
    left = left.flatMap(part =>
      toUs <= part.fromUs || fromUs >= part.toUs
        ? [part]
        : [
            { ...part, toUs: Math.max(fromUs, part.fromUs) },
            { ...part, fromUs: Math.min(toUs, part.toUs) }
          ]
    )
  }
  return left.filter(({ fromUs, toUs }) => toUs - Math.ceil(fromUs / cadenceUs) * cadenceUs >= lateUs(cadenceUs))
}

function lateUs(cadenceUs: number): number {
  return Math.min(LATE_US_MAX, cadenceUs / 2)
}

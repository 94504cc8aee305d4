import { beforeEach, expect, it } from 'vitest'
import { Images } from '../../src/exchanges/images.ts'
import { StubHost } from '../helpers/host.ts'

let host: StubHost
let images: Images
let asked: string[]

beforeEach(() => {
  host = new StubHost()
  asked = []
  images = new Images(host, (index, id) => void asked.push(`${index} ${id}`))
})
const lastId = () => asked.at(-1)!.split(' ')[1]!

it('asks once, however often it is wanted, and knows the answer by its id', () => {
  images.want(0)
  images.want(0)
  images.renew(0, 'sequence')
  expect(asked).toEqual(['0 image-0-1'])
  expect(images.answered('image-0-2')).toBeUndefined()
  expect(images.answered('image-0-1')).toBe(0)
  expect(images.answered('image-0-1')).toBeUndefined()
})

it('keeps frames in their order until the image is done', () => {
  images.want(0)
  images.hold(0, 'a')
  images.hold(0, 'b')
  images.answered(lastId())
  expect(images.backlog(0)).toEqual(['a', 'b'])
  images.done(0)
  expect(images.backlog(0)).toEqual([])
})

it('of too many frames the oldest go', () => {
  images.want(0)
  for (let n = 0; n < 50_000; n++) images.hold(0, String(n))
  const backlog = images.backlog(0)
  expect(backlog.length).toBeLessThanOrEqual(20_000)
  expect(backlog.at(-1)).toBe('49999')
  expect(Number(backlog.at(-1)) - Number(backlog[0])).toBe(backlog.length - 1)
  for (let n = 0; n < 40; n++) images.hold(0, 'x'.repeat(1024 * 1024))
  expect(images.backlog(0).reduce((sum, text) => sum + text.length, 0)).toBeLessThanOrEqual(16 * 1024 * 1024)
})

it('asks again after a failure, later each time, but within a minute', () => {
  images.want(0)
  const waits: number[] = []
  for (let n = 0; n < 10; n++) {
    images.answered(lastId())
    images.again(0)
    const before = asked.length
    let seconds = 0
    for (; asked.length === before; seconds += 0.5) {
      host.pass(0.5)
      images.tick()
    }
    waits.push(seconds)
  }
  expect(waits[0]).toBe(0.5)
  expect(waits).toEqual(waits.toSorted((a, b) => a - b))
  expect(waits.at(-1)).toBe(60)
})

it('asks again when no answer comes', () => {
  images.want(0)
  const first = lastId()
  host.pass(29)
  images.tick()
  expect(asked).toHaveLength(1)
  host.pass(2)
  images.tick()
  expect(images.answered(first)).toBeUndefined()
  host.pass(1)
  images.tick()
  expect(asked).toHaveLength(2)
})

it('a book that is lost after a steady time is asked for at once; one that is lost again soon, later', () => {
  images.want(0)
  images.answered(lastId())
  images.done(0)
  host.pass(61)
  images.renew(0, 'sequence')
  expect(asked).toHaveLength(2)
  expect(host.statuses).toEqual([{ event: 'resubscribed', detail: { reason: 'sequence', attempt: 1 } }])
  expect(host.logs).toEqual(['Forced resubscribe'])
  images.answered(lastId())
  images.done(0)
  host.pass(1)
  images.renew(0, 'sequence')
  expect(asked).toHaveLength(2)
  host.pass(1)
  images.tick()
  expect(asked).toHaveLength(3)
})

it('forgets what waits and what is under way when the subscription is left', () => {
  images.want(0)
  images.hold(0, 'a')
  images.reset(0)
  expect(images.answered('image-0-1')).toBeUndefined()
  expect(images.backlog(0)).toEqual([])
  images.want(0)
  expect(asked).toHaveLength(2)
})

it('comes back from plain data', () => {
  images.want(0)
  images.hold(0, 'a')
  const again: string[] = []
  const other = new Images(host, (_, id) => void again.push(id))
  other.state = JSON.parse(JSON.stringify(images.state))
  expect(other.backlog(0)).toEqual(['a'])
  expect(other.answered('image-0-1')).toBe(0)
  other.again(0)
  host.pass(1)
  other.tick()
  expect(again).toEqual(['image-0-2'])
})

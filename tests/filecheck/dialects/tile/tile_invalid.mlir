// RUN: VERIFY_DIAG

// CHECK: role 'nope' is not one of act, rhs, row, stream, second, pooled, weight, params, acc, rows, inner, product, output
%0 = tile.ring "nope" 0 slots 2 x 128 : !tile.channel

// -----

// CHECK: a ring has at least one slot, and slots of 0 or more bytes
%0 = tile.ring "act" 0 slots 0 x 128 : !tile.channel

// -----

// CHECK: dim 'x' is not one of n, h, w, c, k
tile.for "x" to 4 step 2 {
  tile.vector
}

// -----

// CHECK: a loop has a size and a step of at least 1
tile.for "h" to 4 step 0 {
  tile.vector
}

// -----

// CHECK: a place has 4 strides, got 3
"test.op"() {place = #tile.place<sram, 0, [1, 2, 3], 1>} : () -> ()

// -----

// CHECK: unknown memory 'nowhere'
"test.op"() {place = #tile.place<nowhere, 0, [1, 2, 3, 4], 1>} : () -> ()

// -----

// CHECK: #tile.schedule: kernel 'a': unknown key 'color'; known keys are input_slots, keep, kernel,
"test.op"() {schedule = #tile.schedule<kernel = "a", color = 3>} : () -> ()

// -----

// CHECK: #tile.schedule: kernel 'a': key 'nodes' is missing
"test.op"() {schedule = #tile.schedule<kernel = "a">} : () -> ()

// -----

// CHECK: kernel 'a': tile_h = 0 must be an integer of at least 1
"test.op"() {schedule = #tile.schedule<kernel = "a", nodes = [], tile_h = 0, tile_w = 1, tile_c = 1, tile_k = 1>} : () -> ()

// -----

// CHECK: #tile.schedule: kernel 'a': stripes = 4 must be a list
"test.op"() {schedule = #tile.schedule<kernel = "a", nodes = [], tile_h = 1, tile_w = 1, tile_c = 1, tile_k = 1, stripes = 4>} : () -> ()

// -----

// CHECK: kernel 'a': stripes = (4, 2) must be integers that do not fall
"test.op"() {schedule = #tile.schedule<kernel = "a", nodes = [], tile_h = 1, tile_w = 1, tile_c = 1, tile_k = 1, stripes = [4, 2]>} : () -> ()

// -----

// CHECK: kernel 'a': it shares a loop with the next kernel, so it needs stripes
"test.op"() {schedule = #tile.schedule<kernel = "a", nodes = [], tile_h = 1, tile_w = 1, tile_c = 1, tile_k = 1, shares = true>} : () -> ()

// -----

func.func @stranger(%x: tensor<4xf32>) {
  // CHECK: test.op cannot stand among the steps of a kernel
  %0 = tile.kernel "r" (%a = %x) : (tensor<4xf32>) -> tensor<4xf32> {
    %1 = qnn.relu %a : tensor<4xf32>
    kern.yield %1 : tensor<4xf32>
  } schedule <kernel = "r", nodes = ["r"], tile_h = 1, tile_w = 1, tile_c = 4, tile_k = 1> steps {
    "test.op"() : () -> ()
  }
  func.return
}

// -----

func.func @not_places(%x: tensor<4xf32>) {
  // CHECK: places is an array of #tile.place
  %0 = tile.kernel "r" (%a = %x) : (tensor<4xf32>) -> tensor<4xf32> {
    %1 = qnn.relu %a : tensor<4xf32>
    kern.yield %1 : tensor<4xf32>
  } schedule <kernel = "r", nodes = ["r"], tile_h = 1, tile_w = 1, tile_c = 4, tile_k = 1> places [3] steps {
    tile.vector
  }
  func.return
}

// RUN: quartic-opt %s -p fuse-kernels,materialize-copies --split-input-file | filecheck %s

// Queries and values of two heads are read where one product for both wrote them.
// CHECK-LABEL: @main
// CHECK: %[[QKV:.*]] = kern.kernel "qkv"
// CHECK: %[[Q:.*]] = kern.view "query" (%{{.*}} = %[[QKV]])
// CHECK: %[[V:.*]] = kern.view "value" (%{{.*}} = %[[QKV]])
// CHECK: kern.kernel "scores" (%{{.*}} = %[[Q]], %{{.*}} = %[[V]])
func.func @main(%x: tensor<1x5x8x!qnn.int<8, 0.1, 0>>) -> tensor<2x5x4xf32> {
  %w = qnn.constant dense<1> : tensor<16x8xi8> : tensor<16x8xi8>
  %s = qnn.constant dense<0.5> : tensor<16xf32> : tensor<16xf32>
  %0 = qnn.linear %x, %w, %s : (tensor<1x5x8x!qnn.int<8, 0.1, 0>>, tensor<16x8xi8>, tensor<16xf32>) -> tensor<1x5x16xf32> loc("qkv | net")
  %1 = qnn.quantize %0 : tensor<1x5x16xf32> -> tensor<1x5x16x!qnn.int<8, 0.1, 0>> loc("qkv | net")
  %2 = qnn.slice %1 from <0, 0, 0> size <1, 5, 8> step <1, 1, 1> : tensor<1x5x16x!qnn.int<8, 0.1, 0>> -> tensor<1x5x8x!qnn.int<8, 0.1, 0>> loc("query | net")
  %3 = qnn.reshape %2 : tensor<1x5x8x!qnn.int<8, 0.1, 0>> -> tensor<5x2x4x!qnn.int<8, 0.1, 0>> loc("query | net")
  %4 = qnn.permute %3 order <1, 0, 2> : tensor<5x2x4x!qnn.int<8, 0.1, 0>> -> tensor<2x5x4x!qnn.int<8, 0.1, 0>> loc("query | net")
  %5 = qnn.slice %1 from <0, 0, 8> size <1, 4, 8> step <1, 1, 1> : tensor<1x5x16x!qnn.int<8, 0.1, 0>> -> tensor<1x4x8x!qnn.int<8, 0.1, 0>> loc("value | net")
  %6 = qnn.reshape %5 : tensor<1x4x8x!qnn.int<8, 0.1, 0>> -> tensor<4x2x4x!qnn.int<8, 0.1, 0>> loc("value | net")
  %7 = qnn.permute %6 order <1, 0, 2> : tensor<4x2x4x!qnn.int<8, 0.1, 0>> -> tensor<2x4x4x!qnn.int<8, 0.1, 0>> loc("value | net")
  %8 = qnn.matmul %4, %7 : (tensor<2x5x4x!qnn.int<8, 0.1, 0>>, tensor<2x4x4x!qnn.int<8, 0.1, 0>>) -> tensor<2x5x4xf32> loc("scores | net")
  func.return %8 : tensor<2x5x4xf32>
}

// -----

// Heads are written side by side: the operand of the view is a strided alias of its result.
// CHECK-LABEL: @main
// CHECK: %[[HEADS:.*]] = kern.kernel "mixed"
// CHECK: %[[TOKENS:.*]] = kern.view "tokens" (%{{.*}} = %[[HEADS]])
// CHECK: kern.kernel "out" (%{{.*}} = %[[TOKENS]],
// CHECK-NOT: "copy_
func.func @main(%a: tensor<2x5x4x!qnn.int<8, 0.1, 0>>, %b: tensor<2x4x4x!qnn.int<8, 0.1, 0>>) -> tensor<5x3xf32> {
  %w = qnn.constant dense<1> : tensor<3x8xi8> : tensor<3x8xi8>
  %s = qnn.constant dense<0.5> : tensor<3xf32> : tensor<3xf32>
  %0 = qnn.matmul %a, %b : (tensor<2x5x4x!qnn.int<8, 0.1, 0>>, tensor<2x4x4x!qnn.int<8, 0.1, 0>>) -> tensor<2x5x4xf32> loc("mixed | net")
  %1 = qnn.quantize %0 : tensor<2x5x4xf32> -> tensor<2x5x4x!qnn.int<8, 0.1, 0>> loc("mixed | net")
  %2 = qnn.permute %1 order <1, 0, 2> : tensor<2x5x4x!qnn.int<8, 0.1, 0>> -> tensor<5x2x4x!qnn.int<8, 0.1, 0>> loc("tokens | net")
  %3 = qnn.reshape %2 : tensor<5x2x4x!qnn.int<8, 0.1, 0>> -> tensor<5x8x!qnn.int<8, 0.1, 0>> loc("tokens | net")
  %4 = qnn.linear %3, %w, %s : (tensor<5x8x!qnn.int<8, 0.1, 0>>, tensor<3x8xi8>, tensor<3xf32>) -> tensor<5x3xf32> loc("out | net")
  func.return %4 : tensor<5x3xf32>
}

// -----

// A row that is repeated is no factor of a product as it lies: the matrix unit wants pixels apart.
// CHECK-LABEL: @main
// CHECK: %[[ROW:.*]] = kern.view "row"
// CHECK: %[[COPY:.*]] = kern.kernel "copy_0" (%{{.*}} = %[[ROW]])
// CHECK: kern.kernel "out" (%{{.*}} = %[[COPY]],
func.func @main(%x: tensor<1x1x8x!qnn.int<8, 0.1, 0>>) -> tensor<1x4x3xf32> {
  %w = qnn.constant dense<1> : tensor<3x8xi8> : tensor<3x8xi8>
  %s = qnn.constant dense<0.5> : tensor<3xf32> : tensor<3xf32>
  %0 = qnn.expand %x : tensor<1x1x8x!qnn.int<8, 0.1, 0>> -> tensor<1x4x8x!qnn.int<8, 0.1, 0>> loc("row | net")
  %1 = qnn.linear %0, %w, %s : (tensor<1x4x8x!qnn.int<8, 0.1, 0>>, tensor<3x8xi8>, tensor<3xf32>) -> tensor<1x4x3xf32> loc("out | net")
  func.return %1 : tensor<1x4x3xf32>
}

// -----

// A reshape sinks through the chain behind a product until another one undoes it.
// CHECK-LABEL: @main
// CHECK: kern.kernel "scores"
// CHECK-NOT: qnn.reshape
// CHECK: qnn.quantize
// CHECK: kern.kernel "mixed"
// CHECK-NOT: kern.view
func.func @main(%a: tensor<2x5x4x!qnn.int<8, 0.1, 0>>, %b: tensor<2x4x5x!qnn.int<8, 0.1, 0>>) -> tensor<2x5x5xf32> {
  %c = qnn.constant dense<0.5> : tensor<2x1x1xf32> : tensor<2x1x1xf32>
  %0 = qnn.matmul %a, %b : (tensor<2x5x4x!qnn.int<8, 0.1, 0>>, tensor<2x4x5x!qnn.int<8, 0.1, 0>>) -> tensor<2x5x5xf32> loc("scores | net")
  %1 = qnn.reshape %0 : tensor<2x5x5xf32> -> tensor<1x2x5x5xf32> loc("apart | net")
  %2 = qnn.mul %1, %c : (tensor<1x2x5x5xf32>, tensor<2x1x1xf32>) -> tensor<1x2x5x5xf32> loc("scaled | net")
  %3 = qnn.relu %2 : tensor<1x2x5x5xf32> loc("scaled | net")
  %4 = qnn.quantize %3 : tensor<1x2x5x5xf32> -> tensor<1x2x5x5x!qnn.int<8, 0.1, 0>> loc("scaled | net")
  %5 = qnn.reshape %4 : tensor<1x2x5x5x!qnn.int<8, 0.1, 0>> -> tensor<2x5x5x!qnn.int<8, 0.1, 0>> loc("together | net")
  %6 = qnn.matmul %5, %5 : (tensor<2x5x5x!qnn.int<8, 0.1, 0>>, tensor<2x5x5x!qnn.int<8, 0.1, 0>>) -> tensor<2x5x5xf32> loc("mixed | net")
  func.return %6 : tensor<2x5x5xf32>
}

// -----

// A row joins the product whose result it repeats over, which the graph makes first; the image is a view of the tokens.
// CHECK-LABEL: @main
// CHECK: %[[ROW:.*]] = kern.kernel "row"
// CHECK: %[[TOKENS:.*]] = kern.kernel "tokens" ({{.*}} = %[[ROW]])
// CHECK: qnn.relu
// CHECK: kern.view "tokens.1" (%{{.*}} = %[[TOKENS]])
// CHECK: qnn.reshape
// CHECK: qnn.permute
// CHECK-NOT: kern.kernel
func.func @main(%x: tensor<6x8xf32>, %y: tensor<1x4xf32>) -> tensor<1x8x2x3xf32> {
  %w = qnn.constant dense<1.0> : tensor<8x8xf32> : tensor<8x8xf32>
  %v = qnn.constant dense<1.0> : tensor<8x4xf32> : tensor<8x4xf32>
  %s = qnn.constant dense<1.0> : tensor<8xf32> : tensor<8xf32>
  %0 = qnn.linear %x, %w, %s : (tensor<6x8xf32>, tensor<8x8xf32>, tensor<8xf32>) -> tensor<6x8xf32> loc("tokens | net")
  %1 = qnn.reshape %0 : tensor<6x8xf32> -> tensor<1x2x3x8xf32> loc("tokens | net")
  %2 = qnn.linear %y, %v, %s : (tensor<1x4xf32>, tensor<8x4xf32>, tensor<8xf32>) -> tensor<1x8xf32> loc("row | net")
  %3 = qnn.reshape %2 : tensor<1x8xf32> -> tensor<1x1x1x8xf32> loc("row | net")
  %4 = qnn.add %1, %3 : (tensor<1x2x3x8xf32>, tensor<1x1x1x8xf32>) -> tensor<1x2x3x8xf32> loc("sum | net")
  %5 = qnn.relu %4 : tensor<1x2x3x8xf32> loc("sum | net")
  %6 = qnn.permute %5 order <0, 3, 1, 2> : tensor<1x2x3x8xf32> -> tensor<1x8x2x3xf32> loc("image | net")
  func.return %6 : tensor<1x8x2x3xf32>
}

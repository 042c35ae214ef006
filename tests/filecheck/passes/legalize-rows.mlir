// RUN: quartic-opt %s -p legalize-rows --split-input-file | filecheck %s

// CHECK-LABEL: @scores
func.func @scores(%a: tensor<2x3x5x7xf32>) -> tensor<2x3x5x7xf32> {
  // CHECK-NEXT: %0 = qnn.reshape %a : tensor<2x3x5x7xf32> -> tensor<30x7xf32>
  // CHECK-NEXT: %1 = qnn.softmax %0 axis 1 : tensor<30x7xf32> -> tensor<30x7xf32>
  // CHECK-NEXT: %2 = qnn.reshape %1 : tensor<30x7xf32> -> tensor<2x3x5x7xf32>
  // CHECK-NEXT: func.return %2
  %0 = qnn.softmax %a axis 3 : tensor<2x3x5x7xf32> -> tensor<2x3x5x7xf32>
  func.return %0 : tensor<2x3x5x7xf32>
}

// -----

// Scores of a product keep its batches, so that they join its kernel.
// CHECK-LABEL: @product
func.func @product(%a: tensor<6x5x4x!qnn.int<8, 0.5, 0>>, %b: tensor<6x4x7x!qnn.int<8, 0.5, 0>>) -> tensor<2x3x5x7xf32> {
  // CHECK: qnn.softmax %{{.*}} axis 2 : tensor<6x5x7xf32> -> tensor<6x5x7xf32>
  %0 = qnn.matmul %a, %b : (tensor<6x5x4x!qnn.int<8, 0.5, 0>>, tensor<6x4x7x!qnn.int<8, 0.5, 0>>) -> tensor<6x5x7xf32>
  %1 = qnn.reshape %0 : tensor<6x5x7xf32> -> tensor<2x3x5x7xf32>
  %2 = qnn.softmax %1 axis 3 : tensor<2x3x5x7xf32> -> tensor<2x3x5x7xf32>
  func.return %2 : tensor<2x3x5x7xf32>
}

// -----

// The channels of an image lie innermost.
// CHECK-LABEL: @channels
func.func @channels(%a: tensor<2x3x5x7xf32>) -> tensor<2x3x5x7xf32> {
  // CHECK-NEXT: %0 = qnn.softmax %a axis 1
  // CHECK-NEXT: func.return %0
  %0 = qnn.softmax %a axis 1 : tensor<2x3x5x7xf32> -> tensor<2x3x5x7xf32>
  func.return %0 : tensor<2x3x5x7xf32>
}

// -----

// CHECK-LABEL: @columns
func.func @columns(%a: tensor<2x3x5xf32>) -> tensor<2x5xf32> {
  // CHECK-NEXT: %0 = qnn.permute %a order <0, 2, 1>
  // CHECK-NEXT: %1 = qnn.reshape %0 : tensor<2x5x3xf32> -> tensor<10x3xf32>
  // CHECK-NEXT: %2 = qnn.reduce "max" %1 axis 1 keepdim : tensor<10x3xf32> -> tensor<10x1xf32>
  // CHECK-NEXT: %3 = qnn.reshape %2 : tensor<10x1xf32> -> tensor<2x5xf32>
  // CHECK-NEXT: func.return %3
  %0 = qnn.reduce "max" %a axis 1 : tensor<2x3x5xf32> -> tensor<2x5xf32>
  func.return %0 : tensor<2x5xf32>
}
